/**
 * Dirty bitmaps: which parts of a disk were written since some moment, kept with the image.
 *
 * Above: the graph passes them on (`BlockBackend.bitmaps`), and changes them only while the node is at rest.
 * Below: a driver whose format stores them.
 *
 * 1. A bitmap that records covers every write from the moment on at which it was told to, and may cover more.
 * 2. Changes are in memory until `store`, which closing does too: all are stored, or none. A bitmap that recorded
 *    when the power failed is found *inconsistent* afterwards, and can only be removed.
 * 3. Ranges are whole granules, cut at the end of the disk.
 */

/** One bitmap, as it stands. */
export interface DirtyBitmap {
  readonly name: string;
  /** Bytes of the disk behind one bit: a power of two, at least 512. */
  readonly granularityBytes: number;
  /** Whether writes are noted. */
  readonly recording: boolean;
  /** It was not stored when its image was last written: nothing but `remove` is of use. */
  readonly inconsistent: boolean;
}

/** What a new bitmap is to be. */
export interface DirtyBitmapOptions {
  /** By default what suits the format. */
  readonly granularityBytes?: number;
  /** Default `true`. */
  readonly recording?: boolean;
}

/** A part of the disk, in bytes. */
export interface DirtyRange {
  readonly offset: number;
  readonly lengthBytes: number;
}

/**
 * What a driver with dirty bitmaps offers.
 *
 * Those that name one throw BlockError `ENOENT` when there is no bitmap of the name (save `add`), and refuse an
 * inconsistent one with `EINVAL` (save `remove`).
 */
export interface BitmapControl {
  /** Whether this image can keep bitmaps at all: older versions of a format may not. */
  readonly canStore: boolean;
  /** Bytes of the disk that the bitmaps are about. */
  readonly diskBytes: number;
  /** All of them, in the order in which they are stored. @throws CorruptImageError */
  list(): Promise<readonly DirtyBitmap[]>;
  /**
   * Makes a bitmap without a dirty range.
   *
   * @throws BlockError `EEXIST`, `EINVAL` for a name or a granularity that cannot be, `EFBIG` when it would be too
   *   long to be stored
   */
  add(name: string, options?: DirtyBitmapOptions): Promise<void>;
  remove(name: string): Promise<void>;
  /** Makes everything clean. */
  clear(name: string): Promise<void>;
  /** Begins or ends to note writes. */
  setRecording(name: string, recording: boolean): Promise<void>;
  /** Makes ranges dirty: each granule that one touches. Ranges behind the end of the disk are refused. */
  mark(name: string, ranges: readonly DirtyRange[]): Promise<void>;
  /**
   * Dirty ranges from an offset on, each as long as it goes.
   *
   * @param limit - how many at most
   */
  dirtyRanges(name: string, from: number, limit: number): Promise<readonly DirtyRange[]>;
  /** Stores what changed, durably. @throws the error of a write; nothing is stored then */
  store(): Promise<void>;
}
