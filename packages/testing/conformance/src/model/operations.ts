/** Random lists of operations: how they are made, cut to fit a disk, and printed as code that runs. */
import { alignDown, hex } from "@blocklayer/bytes";
import type { BlockCapabilities, BlockLimits } from "@blocklayer/block-api";
import type { Prng } from "../pattern.js";

/** One step. Offsets and lengths are bytes; `seed` is that of `pattern`. */
export type Operation =
  | {
      readonly kind: "write";
      readonly offset: number;
      readonly lengthBytes: number;
      readonly seed: number;
      readonly parts: number;
      readonly fua: boolean;
    }
  | {
      readonly kind: "zero";
      readonly offset: number;
      readonly lengthBytes: number;
      readonly mayUnmap: boolean;
    }
  | { readonly kind: "discard"; readonly offset: number; readonly lengthBytes: number }
  | { readonly kind: "read"; readonly offset: number; readonly lengthBytes: number }
  | { readonly kind: "status"; readonly offset: number; readonly lengthBytes: number }
  | { readonly kind: "truncate"; readonly lengthBytes: number }
  | { readonly kind: "flush" }
  | { readonly kind: "reopen" }
  | { readonly kind: "together"; readonly steps: readonly Operation[] };

/** What the lists may contain. */
export interface OperationLimits {
  readonly unit: number;
  readonly lengthBytes: number;
  readonly limits: BlockLimits;
  readonly capabilities: BlockCapabilities;
  readonly canReopen: boolean;
}

const LENGTHS = [512, 1024, 4096, 65536, 65536 * 3];
const STEPS_TOGETHER = 6;

/** A list of random operations. */
export function randomOperations(
  random: Prng,
  count: number,
  allowed: OperationLimits,
): Operation[] {
  return Array.from({ length: count }, () => randomOperation(random, allowed));
}

function randomOperation(random: Prng, allowed: OperationLimits): Operation {
  const { capabilities, unit } = allowed;
  const range = randomRange(random, allowed);
  const seed = random.below(2 ** 20);
  const write: Operation = {
    kind: "write",
    ...range,
    seed,
    parts: random.pick([1, 1, 2, 5, 40]),
    fua: capabilities.fua && random.below(10) === 0,
  };
  const die = random.below(100);
  if (die < 35) return write;
  if (die < 50) return { kind: "read", ...range };
  if (die < 64 && capabilities.writeZeroes) {
    return { kind: "zero", ...range, mayUnmap: random.below(2) === 0 };
  }
  if (die < 74 && capabilities.discard) return { kind: "discard", ...range };
  if (die < 80) return { kind: "status", ...range };
  if (die < 85 && capabilities.truncate) {
    const step = Math.max(unit, 512);
    const share = 0.5 + random.below(1000) / 1000;
    return { kind: "truncate", lengthBytes: alignDown(allowed.lengthBytes * share, step) + step };
  }
  if (die < 90) return { kind: "flush" };
  if (die < 93 && allowed.canReopen) return { kind: "reopen" };
  return { kind: "together", steps: randomNeighbours(random, allowed) };
}

/** Writes and zeroes that lie side by side, to be sent at once. */
function randomNeighbours(random: Prng, allowed: OperationLimits): Operation[] {
  const steps: Operation[] = [];
  let offset = randomRange(random, allowed).offset;
  for (let i = 0; i < STEPS_TOGETHER; i++) {
    const wanted = (1 + random.below(12)) * allowed.unit;
    const lengthBytes = Math.min(wanted, allowed.limits.maxTransfer);
    if (offset + lengthBytes > allowed.lengthBytes) break;
    steps.push(
      allowed.capabilities.writeZeroes && random.below(4) === 0
        ? { kind: "zero", offset, lengthBytes, mayUnmap: false }
        : { kind: "write", offset, lengthBytes, seed: random.below(2 ** 20), parts: 1, fua: false },
    );
    offset += lengthBytes;
  }
  return steps;
}

/** Short ranges mostly, often at the boundaries that matter. */
function randomRange(
  random: Prng,
  allowed: OperationLimits,
): { offset: number; lengthBytes: number } {
  const { unit, lengthBytes: total, limits } = allowed;
  const boundary = random.pick(LENGTHS);
  const near = random.below(Math.ceil(total / boundary)) * boundary;
  const shift = (random.below(5) - 2) * unit * random.pick([0, 0, 1, 3]);
  const offset = clamp(alignDown(Math.max(near + shift, 0), unit), 0, total - unit);
  const longest = Math.min(total - offset, limits.maxTransfer);
  const wanted = random.pick(LENGTHS) + (random.below(3) - 1) * unit;
  return { offset, lengthBytes: clamp(alignDown(wanted, unit), unit, alignDown(longest, unit)) };
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

/**
 * Cuts an operation to a disk of this length, so that lists stay meaningful when steps are taken out.
 *
 * @returns `undefined` when nothing is left
 */
export function fitOperation(operation: Operation, lengthBytes: number): Operation | undefined {
  if (operation.kind === "together") {
    const steps = operation.steps
      .map((step) => fitOperation(step, lengthBytes))
      .filter((step) => step !== undefined);
    return steps.length === 0 ? undefined : { kind: "together", steps };
  }
  if (!("offset" in operation)) return operation;
  if (operation.offset >= lengthBytes) return undefined;
  const fits = Math.min(operation.lengthBytes, lengthBytes - operation.offset);
  return { ...operation, lengthBytes: fits };
}

/** The statement that does an operation, given a `disk`. */
export function operationCode(operation: Operation, partUnit: number): string {
  return `await ${operationCall(operation, partUnit)};`;
}

function operationCall(operation: Operation, partUnit: number): string {
  switch (operation.kind) {
    case "write": {
      const bytes = `pattern(${operation.seed}, ${operation.lengthBytes})`;
      const vector =
        operation.parts === 1
          ? `IoVector.of(${bytes})`
          : `IoVector.from(split(${bytes}, ${operation.parts}, ${partUnit}))`;
      const options = operation.fua ? ", { fua: true }" : "";
      return `disk.writev(${hex(operation.offset)}, ${vector}${options})`;
    }
    case "zero": {
      const options = operation.mayUnmap ? ", { mayUnmap: true }" : "";
      return `disk.writeZeroes(${hex(operation.offset)}, ${operation.lengthBytes}${options})`;
    }
    case "discard":
      return `disk.discard(${hex(operation.offset)}, ${operation.lengthBytes})`;
    case "read": {
      const target = `IoVector.allocate(${operation.lengthBytes})`;
      return `disk.readv(${hex(operation.offset)}, ${target})`;
    }
    case "status":
      return `disk.blockStatus(${hex(operation.offset)}, ${operation.lengthBytes})`;
    case "truncate":
      return `disk.truncate(${operation.lengthBytes})`;
    case "flush":
      return "flush(disk)";
    case "reopen":
      return "disk.close(); disk = await reopen()";
    case "together": {
      const calls = operation.steps.map((step) => operationCall(step, partUnit));
      return `Promise.all([${calls.join(", ")}])`;
    }
  }
}
