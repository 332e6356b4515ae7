/** What a comparison takes and gives. */

/** Options of `compareImages`. */
export interface CompareOptions {
  /** Sizes and allocation must be the same too (`-s`). */
  readonly strict?: boolean;
  /** Called now and then, with bytes compared so far and in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * What was found. Offsets are bytes.
 *
 * - `identical`: `sizesDiffer` when one is longer and its tail reads as zeroes
 * - `content-mismatch`: `offset` is the start of the first 512-byte sector that differs; `sizesDiffer` when that lies
 *   behind the end of the shorter disk, which is when qemu-img warns
 * - `size-mismatch`: strict only
 * - `allocation-mismatch`: strict only
 */
export type CompareResult =
  | { readonly kind: "identical"; readonly sizesDiffer: boolean }
  | { readonly kind: "content-mismatch"; readonly offset: number; readonly sizesDiffer: boolean }
  | { readonly kind: "size-mismatch" }
  | { readonly kind: "allocation-mismatch"; readonly offset: number };
