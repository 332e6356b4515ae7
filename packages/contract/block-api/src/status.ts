/** What is behind a range of a disk. */

/** One extent, as a driver sees it: itself only, not what its children hold. */
export interface BlockStatus {
  /** Length of the extent in bytes, from the offset that was asked for; at least 1. */
  readonly lengthBytes: number;
  /** This layer decides what a read returns; `false`: the backing layer is asked, or zeroes. */
  readonly allocated: boolean;
  /** There are bytes on the medium (or in the child at `hostOffset`). */
  readonly data: boolean;
  /** The extent reads as zeroes for certain. */
  readonly zero: boolean;
  /** The bytes are compressed: there is no `hostOffset`. */
  readonly compressed: boolean;
  /** Where the extent's first byte lies in the `file` child (or in itself, for a byte store). */
  readonly hostOffset?: number;
  /** The `file` child may know more: whether the bytes at `hostOffset` are a hole. */
  readonly recurse?: boolean;
}
