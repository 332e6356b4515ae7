/** Makes a failing list of operations as short and as plain as it gets while it still fails. */
import { alignDown } from "@blocklayer/bytes";
import type { Operation } from "./operations.js";

/** Runs that shrinking may take: a slow driver must not hold a report up for ever. */
const MAX_ATTEMPTS = 600;

/** Tells whether a list still fails. */
export type StillFails = (operations: readonly Operation[]) => Promise<boolean>;

/**
 * @param operations - a list that fails
 * @param unit - what offsets and lengths stay multiples of
 * @returns a list that fails too
 */
export async function shrinkOperations(
  operations: readonly Operation[],
  unit: number,
  stillFails: StillFails,
): Promise<readonly Operation[]> {
  let attempts = 0;
  const tryList = async (list: readonly Operation[]): Promise<boolean> => {
    if (attempts >= MAX_ATTEMPTS) return false;
    attempts++;
    return stillFails(list);
  };
  let best = await dropChunks(operations, tryList);
  for (let index = 0; index < best.length; ) {
    const simpler = await simplifyAt(best, index, unit, tryList);
    if (simpler === undefined) index++;
    else best = simpler;
  }
  return dropChunks(best, tryList);
}

/** Takes out halves, quarters, … and single steps for as long as the rest fails. */
async function dropChunks(
  operations: readonly Operation[],
  fails: StillFails,
): Promise<readonly Operation[]> {
  let best = operations;
  for (
    let size = Math.ceil(best.length / 2);
    size >= 1;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let start = best.length - size; start > -size; start -= size) {
      const rest = best.filter((_, index) => index < start || index >= start + size);
      if (rest.length < best.length && (await fails(rest))) best = rest;
    }
  }
  return best;
}

/** The list with one step made simpler, if one of the ways still fails. */
async function simplifyAt(
  operations: readonly Operation[],
  index: number,
  unit: number,
  fails: StillFails,
): Promise<readonly Operation[] | undefined> {
  const operation = operations[index];
  if (operation === undefined) return undefined;
  for (const simpler of simplerOnes(operation, unit)) {
    const list = [...operations.slice(0, index), ...simpler, ...operations.slice(index + 1)];
    if (await fails(list)) return list;
  }
  return undefined;
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
