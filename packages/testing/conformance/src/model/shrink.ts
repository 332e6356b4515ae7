/** Makes a failing list of operations as short and as plain as it gets while it still fails. */
import { alignDown } from "@blocklayer/bytes";
import type { Operation } from "./operations.js";
import { shrinkList } from "./shrink-list.js";

/** Tells whether a list still fails. */
export type StillFails = (operations: readonly Operation[]) => Promise<boolean>;

/**
 * @param operations - a list that fails
 * @param unit - what offsets and lengths stay multiples of
 * @returns a list that fails too
 */
export function shrinkOperations(
  operations: readonly Operation[],
  unit: number,
  stillFails: StillFails,
): Promise<readonly Operation[]> {
  return shrinkList(operations, {
    stillFails,
    simplerOnes: (operation) => simplerOnes(operation, unit),
  });
}

/** Ways to make a step simpler, the boldest first. Each way ends: it shortens or drops something. */
function simplerOnes(operation: Operation, unit: number): Operation[][] {
  if (operation.kind === "together") {
    const dropped = operation.steps.map((_, skipped): Operation[] => [
      { kind: "together", steps: operation.steps.filter((_, index) => index !== skipped) },
    ]);
    return [[...operation.steps], ...(operation.steps.length > 1 ? dropped : [])];
  }
  if (!("offset" in operation)) return [];
  const ways: Operation[][] = [];
  if (operation.kind === "write" && operation.parts > 1) ways.push([{ ...operation, parts: 1 }]);
  if (operation.kind === "write" && operation.fua) ways.push([{ ...operation, fua: false }]);
  if (operation.kind === "zero" && operation.mayUnmap) {
    ways.push([{ ...operation, mayUnmap: false }]);
  }
  const half = alignDown(operation.lengthBytes / 2, unit);
  if (half >= unit) {
    const { offset, lengthBytes } = operation;
    ways.push([{ ...operation, lengthBytes: half }]);
    ways.push([{ ...operation, offset: offset + half, lengthBytes: lengthBytes - half }]);
  }
  return ways;
}
