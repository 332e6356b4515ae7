/** The shapes of qemu-img's JSON: info, check and map. Field names are qemu-img's own. */

/** One image, as `qemu-img info --output=json` tells it. */
export interface ImageInfo {
  readonly filename: string;
  readonly format: string;
  readonly "virtual-size": number;
  /** Bytes that the file takes on its disk; absent where the protocol cannot tell. */
  readonly "actual-size"?: number;
  readonly "cluster-size"?: number;
  readonly "dirty-flag": boolean;
  readonly "backing-filename"?: string;
  readonly "full-backing-filename"?: string;
  readonly "backing-filename-format"?: string;
  readonly snapshots?: readonly SnapshotInfo[];
  readonly "format-specific"?: {
    readonly type: string;
    readonly data: Readonly<Record<string, unknown>>;
  };
}

/** One internal snapshot. */
export interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  readonly "vm-state-size": number;
  readonly "date-sec": number;
  readonly "date-nsec": number;
  readonly "vm-clock-sec": number;
  readonly "vm-clock-nsec": number;
  readonly icount?: number;
}

/** A check, as `qemu-img check --output=json` tells it; `findings` is ours. */
export interface ImageCheck {
  readonly filename: string;
  readonly format: string;
  readonly "check-errors": number;
  readonly "image-end-offset"?: number;
  readonly corruptions?: number;
  readonly leaks?: number;
  readonly "corruptions-fixed"?: number;
  readonly "leaks-fixed"?: number;
  readonly "total-clusters"?: number;
  readonly "allocated-clusters"?: number;
  readonly "fragmented-clusters"?: number;
  readonly "compressed-clusters"?: number;
}

/** One extent, as `qemu-img map --output=json` tells it; `compressed` as later versions do. */
export interface MapEntry {
  readonly start: number;
  readonly length: number;
  /** 0: in the image itself; 1: in its backing image; and so on. */
  readonly depth: number;
  /** Some layer of the chain has the extent. */
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly compressed: boolean;
  /** Where the bytes lie in `filename`. */
  readonly offset?: number;
  /** The file that holds the bytes; with `offset`. */
  readonly filename?: string;
}
