/** How a driver introduces itself: what it is called, what it takes, how it opens and creates. */
import type { MaybePromise } from "@blocklayer/bytes";
import type { BlockChild, BlockDriver, StoredBitmap } from "./driver.js";
import type { OptionSchema, OptionValues } from "./options.js";
import type { ChildRole, Permissions } from "./permissions.js";

/** What a format read in its own header about the file below it. */
export interface BackingReference {
  /** As written in the image. Whoever opens it resolves it against the image's own name. */
  readonly filename: string;
  /** The driver that the image names; absent: the image does not say, and nobody may guess. */
  readonly format?: string;
}

/** What `open` gets. */
export interface OpenContext {
  /** The node's name, for messages. */
  readonly nodeName: string;
  readonly readOnly: boolean;
  /**
   * The image is opened to be checked or repaired: what is wrong with it does not keep it from being opened for
   * writing, and opening repairs nothing by itself. Absent: `false`.
   */
  readonly forCheck?: boolean;
  /** Checked against `openOptions`; defaults filled in. */
  readonly options: OptionValues;
  /** What the node's users hold and share; byte stores turn this into locks. */
  readonly permissions: Permissions;
  /** The children that stand already, by role. A format always has `file`; a protocol has none. */
  readonly children: Readonly<Partial<Record<ChildRole, BlockChild>>>;
  /**
   * Asks for the backing node that the image names. The graph applies the user's override first, then the
   * open gate.
   *
   * @returns the child, or `undefined` when the user detached it (`backing: null`)
   */
  openBacking(reference: BackingReference): MaybePromise<BlockChild | undefined>;
  /** Asks for the external data file that the image names, as `openBacking` does. Absent without a graph. */
  openDataFile?(reference: BackingReference): MaybePromise<BlockChild>;
  readonly signal?: AbortSignal;
}

/** What `create` of a format gets: an empty, writable byte store. */
export interface CreateContext {
  readonly file: BlockChild;
  /** Checked against `createOptions`; defaults filled in. `size` is always there, in bytes. */
  readonly options: OptionValues;
  /** The file that the option `data_file` names: empty and writable, as `file`. Formats without that option: never. */
  readonly dataFile?: BlockChild;
  readonly signal?: AbortSignal;
}

/** A stretch of a disk, in bytes. */
export interface DiskRange {
  readonly offset: number;
  readonly lengthBytes: number;
}

/** The disk that `measure` supposes to be copied into a new image. */
export interface MeasureSource {
  /** What would have to be copied: ascending, without overlap, within the new image's `size`. */
  readonly data: AsyncIterable<DiskRange> | Iterable<DiskRange>;
  /** The dirty bitmaps stored in the source; absent: its format has none. */
  readonly bitmaps?: readonly StoredBitmap[];
}

/** What `measure` of a format gets. */
export interface MeasureContext {
  /** Checked against `createOptions`; defaults filled in. `size` is always there, in bytes. */
  readonly options: OptionValues;
  /** Absent: the image stays empty. */
  readonly source?: MeasureSource;
}

/** How long the file of a new image becomes. All in bytes, as in qemu-img's JSON. */
export interface MeasureResult {
  /** Right after it was made, the source's data copied. */
  readonly requiredBytes: number;
  /** After every sector was written. */
  readonly fullyAllocatedBytes: number;
  /** More, for the source's bitmaps; absent: source or new image cannot have any. */
  readonly bitmapsBytes?: number;
}

/** What `createFile` of a protocol gets. */
export interface CreateFileContext {
  readonly filename: string;
  readonly options: OptionValues;
  readonly signal?: AbortSignal;
}

/** A driver, before anything is open. Plain data and functions: no state. */
export interface DriverDefinition {
  readonly name: string;
  readonly kind: "protocol" | "format" | "filter";
  /**
   * The children hold the disk's bytes as they are, without metadata (raw): what the users of the node hold and
   * share passes through to them. Always so for filters.
   */
  readonly passThrough?: boolean;
  readonly openOptions: OptionSchema;
  readonly createOptions?: OptionSchema;
  /** What `amend` of an open driver takes; absent: the format's options cannot be changed. */
  readonly amendOptions?: OptionSchema;
  /** Options that `reopen` may change. */
  readonly reopenOptions?: readonly string[];
  /** `nbd:`-like prefixes of file names that belong to this protocol. */
  readonly protocolPrefixes?: readonly string[];
  /** Turns a file name into open options (`{ filename }`). Protocols only. */
  parseFilename?(filename: string): Readonly<Record<string, unknown>>;
  /**
   * How surely these bytes are this format: 0 (no) to 100 (magic found). Formats only.
   *
   * @param head - the first bytes of the file, at most 2 KiB
   */
  probe?(head: Uint8Array): number;
  open(context: OpenContext): MaybePromise<BlockDriver>;
  /** Formats: writes an empty image into `context.file`. */
  create?(context: CreateContext): MaybePromise<void>;
  /** Formats: how long the file of an image made with these options becomes. Touches nothing. */
  measure?(context: MeasureContext): MaybePromise<MeasureResult>;
  /** Protocols: makes the file itself. */
  createFile?(context: CreateFileContext): MaybePromise<void>;
  /** Protocols: takes away a file that `createFile` made, when what was to go into it failed. */
  removeFile?(filename: string): MaybePromise<void>;
}
