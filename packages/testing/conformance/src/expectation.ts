/** How a check says that a driver broke its contract. Nothing here knows vitest. */
import { AssertionError, BlockError, type BlockErrorCode, hex } from "@blocklayer/bytes";

/** A driver does not do what the contract says. */
export class ConformanceError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "ConformanceError";
  }
}

/** @throws ConformanceError unless the condition holds */
export function expectThat(condition: boolean, message: string): asserts condition {
  if (!condition) throw new ConformanceError(message);
}

/**
 * Compares byte for byte.
 *
 * @param offset - where the bytes are on the disk, for the message
 * @param what - what was read: `read after write`
 */
export function expectBytes(
  actual: Uint8Array,
  expected: Uint8Array,
  offset: number,
  what: string,
): void {
  expectThat(
    actual.length === expected.length,
    `${what}: ${actual.length} bytes, must be ${expected.length}`,
  );
  const at = firstDifference(actual, expected);
  if (at === undefined) return;
  throw new ConformanceError(
    `${what}: byte ${hex(offset + at)} is ${hex(actual[at] as number)}, ` +
      `must be ${hex(expected[at] as number)} (range ${hex(offset)}, ${expected.length} bytes)`,
  );
}

/** The index of the first byte that differs, if one does. Requires: equal lengths. */
function firstDifference(left: Uint8Array, right: Uint8Array): number | undefined {
  let start = 0;
  if (left.byteOffset % 4 === 0 && right.byteOffset % 4 === 0) {
    // Whole disks are compared after every step: words are four times as fast.
    const count = Math.floor(left.length / 4);
    const leftWords = new Int32Array(left.buffer, left.byteOffset, count);
    const rightWords = new Int32Array(right.buffer, right.byteOffset, count);
    let word = 0;
    while (word < count && leftWords[word] === rightWords[word]) word++;
    start = word * 4;
  }
  for (let i = start; i < left.length; i++) if (left[i] !== right[i]) return i;
  return undefined;
}

/**
 * Runs what may fail, whether it throws or rejects.
 *
 * @returns the error, or `undefined` when there was none
 */
export async function errorOf(action: () => unknown): Promise<unknown> {
  try {
    await action();
    return undefined;
  } catch (error) {
    return error instanceof Error
      ? error
      : new ConformanceError(`not an Error: ${JSON.stringify(error)}`);
  }
}

/** What was thrown, in words. */
export function textOf(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : JSON.stringify(error);
}

/** @throws ConformanceError unless the action fails with a BlockError of one of these codes */
export async function expectCode(
  codes: readonly BlockErrorCode[],
  what: string,
  action: () => unknown,
): Promise<void> {
  const error = await errorOf(action);
  expectThat(error !== undefined, `${what}: must fail with ${codes.join(" or ")}, and succeeded`);
  expectThat(
    error instanceof BlockError && codes.includes(error.code),
    `${what}: must fail with ${codes.join(" or ")}, and failed with ${textOf(error)}`,
  );
}

/** Whether an error is a refusal: the driver says no, or notes that nobody may ask. */
export function isRefusal(error: unknown): boolean {
  return error instanceof BlockError || error instanceof AssertionError;
}
