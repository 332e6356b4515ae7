/** What the services of this package take when they open an image. */
import type { DriverDefinition, SnapshotSelector } from "@blocklayer/block-api";
import type { NodeOptions, OpenGate } from "@blocklayer/block-graph";
import type { CacheMode, CacheModeName } from "./cache-mode.js";

/**
 * How a user names an image: a file name (plain path, `file:path`, another protocol's prefix, `json:{…}`), or
 * the node options themselves, as QEMU's `-blockdev` has them.
 */
export type ImageSource = string | NodeOptions;

/** What only the caller can know: which drivers exist. This package imports none. */
export interface DriverChoice {
  readonly drivers: readonly DriverDefinition[];
}

/** Options of `openImage`. */
export interface OpenImageOptions extends DriverChoice {
  /** The format's name; absent: the first bytes decide, see `allowProbing`. */
  readonly format?: string;
  /** Default `true`: who wants to write says so. */
  readonly readOnly?: boolean;
  /** Opened to be checked or repaired: a corrupt image may be opened for writing then, and a dirty one stays dirty. */
  readonly forCheck?: boolean;
  /** Default `writeback`. */
  readonly cache?: CacheMode | CacheModeName;
  /** Take no lock that keeps others out; what is read may change meanwhile (`-U`). Read-only images only. */
  readonly forceShare?: boolean;
  /**
   * Nobody may write to the image, or to the files below it, while it is open: whoever copies a disk wants it to stay
   * what it is, above all when the copy is to go into the same file. Formats with metadata ask for this by themselves.
   * Default `false`; without effect beside `forceShare`. Read-only images only.
   */
  readonly keepWritersOut?: boolean;
  /** Replaces the backing file that the image names; `null`: open without any. */
  readonly backing?: ImageSource | null;
  /** Who decides about files that images name. Default: `fileOpenGate` with its defaults. */
  readonly openGate?: OpenGate;
  /** Default `true`. `false`: without a format the image is refused. */
  readonly allowProbing?: boolean;
  /**
   * Told when probing found no format and the image is taken as raw: such an image may have been written by
   * a guest that wants to be taken for another format.
   */
  readonly onProbedRaw?: (filename: string) => void;
  /** Show this internal snapshot instead of the disk. Read-only images only. */
  readonly snapshot?: SnapshotSelector;
  /** More options for the format's node: `{ "lazy-refcounts": true }`. */
  readonly nodeOptions?: Readonly<Record<string, unknown>>;
  /** The image was named by `--image-opts`: a string is `driver=qcow2,file.filename=x`. */
  readonly imageOpts?: boolean;
  readonly signal?: AbortSignal;
}
