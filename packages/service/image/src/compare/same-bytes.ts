/** Comparing memory as fast as the runtime can. Pure. */

/** memcmp of the runtime, where it has one. */
interface ByteComparer {
  compare(a: Uint8Array, b: Uint8Array): number;
}

const runtime = (globalThis as { readonly Buffer?: Partial<ByteComparer> }).Buffer;
const native: ByteComparer | null =
  typeof runtime?.compare === "function" ? (runtime as ByteComparer) : null;

/** Short enough that looking for the difference inside costs nothing. */
const SEARCH_BYTES = 64;

/**
 * The position of the first byte in which two buffers of one length differ, or their length.
 *
 * @param comparer - default: the runtime's own memcmp, where there is one; `null`: none
 */
export function firstDifference(
  a: Uint8Array,
  b: Uint8Array,
  comparer: ByteComparer | null = native,
): number {
  if (comparer === null) return differenceByWords(a, b);
  if (comparer.compare(a, b) === 0) return a.length;
  let from = 0;
  let length = a.length;
  while (length > SEARCH_BYTES) {
    const half = length >> 1;
    const isInFirst =
      comparer.compare(a.subarray(from, from + half), b.subarray(from, from + half)) !== 0;
    if (isInFirst) length = half;
    else {
      from += half;
      length -= half;
    }
  }
  while (a[from] === b[from]) from++;
  return from;
}

/** Without a memcmp: 32-bit words where both buffers are aligned to them. */
function differenceByWords(a: Uint8Array, b: Uint8Array): number {
  let at = 0;
  if (a.byteOffset % 4 === 0 && b.byteOffset % 4 === 0) {
    const words = a.length >> 2;
    const wordsA = new Int32Array(a.buffer, a.byteOffset, words);
    const wordsB = new Int32Array(b.buffer, b.byteOffset, words);
    let i = 0;
    while (i < words && wordsA[i] === wordsB[i]) i++;
    at = i * 4;
  }
  while (at < a.length && a[at] === b[at]) at++;
  return at;
}
