/**
 * The contract of a block driver.
 *
 * Above it stands the block graph, which keeps these promises:
 * 1. A driver sees only requests within its `limits`, within `lengthBytes` rounded up to `requestAlignment`,
 *    with buffers aligned as it asked, and never of length 0.
 * 2. No request overlaps `truncate`, `reopen`, `close` or a change of `snapshots`: the node is drained first.
 * 3. `flushToDisk` follows a `flushToOs` that succeeded; one flush runs at a time.
 *
 * And a driver keeps these:
 * 4. Requests may run side by side and end in any order. Two that overlap and were not ordered by their
 *    sender leave either's bytes.
 * 5. What it cannot do it says through `capabilities`; it never pretends.
 * 6. It knows its children only as the BlockChild handles that it is given.
 * 7. A method that has nothing to wait for returns plainly, without a promise.
 */
import type { IoVector, MaybePromise } from "@blocklayer/bytes";
import type { BitmapControl } from "./bitmaps.js";
import type { BackingReference } from "./definition.js";
import type { DebugControl, DebugEvent } from "./debug.js";
import type { BlockLimits } from "./limits.js";
import type { OptionValues } from "./options.js";
import type { Permissions } from "./permissions.js";
import type {
  BlockStatusOptions,
  RequestOptions,
  TruncateOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "./request.js";
import type { SnapshotControl } from "./snapshots.js";
import type { BlockStatus } from "./status.js";

/** What a driver can do. A graph never calls a method whose capability is false. */
export interface BlockCapabilities {
  /** `writev`, `writeZeroes`, `discard`, `truncate`, `flush*` work: the node is not read-only. */
  readonly write: boolean;
  /** `writev({ compressed: true })`. */
  readonly compressedWrite: boolean;
  /** `writeZeroes` is cheaper than writing zero bytes. The graph falls back when false. */
  readonly writeZeroes: boolean;
  /** `discard` gives space back. When false the graph skips it. */
  readonly discard: boolean;
  /** `writev({ fua: true })`. When false the graph flushes after the write. */
  readonly fua: boolean;
  /** `truncate` changes the length. */
  readonly truncate: boolean;
  /** `blockStatus` may show a layer below: reads of what is not allocated go to `backing`. */
  readonly backing: boolean;
}

/** What a plain byte store can do: when it may be written everything, else nothing; it never compresses. */
export function storeCapabilities(write: boolean): BlockCapabilities {
  return {
    write,
    compressedWrite: false,
    writeZeroes: write,
    discard: write,
    fua: write,
    truncate: write,
    backing: false,
  };
}

/** What a node is asked to become by `reopen`. */
export interface ReopenRequest {
  readonly readOnly: boolean;
  /** The driver's own options that change, already checked against its `reopenOptions`. */
  readonly options: Readonly<Record<string, unknown>>;
  /** What the node's users hold and share from now on, when that changes: byte stores change their locks. */
  readonly permissions?: Permissions;
}

/** The I/O that a driver offers its parent, and equally what a parent sees of a child. Offsets are bytes. */
export interface BlockIo {
  /** Current length in bytes. */
  readonly lengthBytes: number;
  readonly limits: BlockLimits;
  readonly capabilities: BlockCapabilities;
  /**
   * Fills the vector from `offset` on.
   *
   * @throws BlockError `EIO` and other errnos of the store; CorruptImageError
   */
  readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void>;
  /**
   * Writes the vector at `offset`. Resolved: readers see it; not yet: that it survives a crash (see flush).
   * A child given to a driver grows when written past its end, if its capabilities say `truncate`.
   */
  writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void>;
  /** Makes a range read as zeroes. */
  writeZeroes(
    offset: number,
    lengthBytes: number,
    options?: WriteZeroesOptions,
  ): MaybePromise<void>;
  /** The range's content is no longer needed. A hint: afterwards it reads as before or as zeroes. */
  discard(offset: number, lengthBytes: number, options?: RequestOptions): MaybePromise<void>;
  /** The extent that starts at `offset`, at most `lengthBytes` long. */
  blockStatus(
    offset: number,
    lengthBytes: number,
    options?: BlockStatusOptions,
  ): MaybePromise<BlockStatus>;
  /** Sets the length. What is new reads as zeroes; what is cut off is gone. */
  truncate(lengthBytes: number, options?: TruncateOptions): MaybePromise<void>;
}

/** An open driver: one node's worth of state. */
export interface BlockDriver extends BlockIo {
  /** The driver's name, as in options: `qcow2`, `file`. */
  readonly driverName: string;
  /** Hands every dirty cache down to the children. Does not sync. */
  flushToOs(): MaybePromise<void>;
  /** Makes what the operating system has stable. Only byte stores have work to do here. */
  flushToDisk(): MaybePromise<void>;
  /** Changes options or the read-only state in place. All or nothing. */
  reopen(request: ReopenRequest): MaybePromise<void>;
  /** Flushes (when writable) and lets go of every resource, even when the flush fails; then throws that failure. */
  close(): MaybePromise<void>;
  /**
   * Hands the bytes over to another process: hands everything dirty down and makes it stable, as a flush of the node
   * with all below it, and forgets what it has read. From then on requests are refused with `EBUSY`, and nothing is
   * written, also by `close`, until `activate`. After failure: active, as before. Requires: the node is drained.
   */
  inactivate?(): MaybePromise<void>;
  /**
   * Takes the bytes back: reads anew what another process may have changed. Does nothing when active.
   *
   * @throws what `open` throws, and BlockError `EINVAL` when it is no longer the same kind of disk; inactive still
   */
  activate?(): MaybePromise<void>;
  /** What `blk info` prints under "Format specific information". */
  formatInfo?(): MaybePromise<FormatInfo>;
  /** Byte stores: how much space the bytes take on their medium (`actual-size` of qemu-img's JSON). */
  allocatedBytes?(): MaybePromise<number>;
  /** Counters and sizes worth watching. */
  statistics?(): Readonly<Record<string, number | boolean | string>>;
  /**
   * Looks for broken metadata, and mends it when asked to. Without `fix` read-only.
   *
   * @throws BlockError `EACCES` when `fix` is given and the image is open read-only, `EIO` when what is broken
   *   cannot be mended by the given kind of repair
   *
   * **Caller:** with `fix` no request runs beside it: the node is drained.
   */
  check?(options?: CheckOptions): MaybePromise<CheckResult>;
  /** Dirty bitmaps, where the format keeps them. */
  readonly bitmaps?: BitmapControl | undefined;
  /** Internal snapshots, where the format keeps them. */
  readonly snapshots?: SnapshotControl;
  /**
   * Changes options of the format, durably. All is checked before anything changes.
   *
   * Requires: no other request is in flight.
   * @param values - checked against the definition's `amendOptions`
   */
  amend?(values: OptionValues, options?: AmendDriverOptions): MaybePromise<void>;
  /**
   * Writes the name of another backing file into the image, or of none, durably. What the driver has open stays.
   *
   * Requires: no other request is in flight.
   */
  changeBacking?(reference: BackingReference | undefined): MaybePromise<void>;
  /** Drops every cluster of the disk, so that the backing file shows everywhere. Requires: as `changeBacking`. */
  makeEmpty?(): MaybePromise<void>;
  /** Hears of a moment in the work of the driver above. It may wait (parked), and it never fails. */
  readonly debugEvent?: ((event: DebugEvent) => MaybePromise<void>) | undefined;
  /** Drivers that park requests: how to ask for it. */
  readonly debug?: DebugControl;
}

/** Options of `amend`. */
export interface AmendDriverOptions extends RequestOptions {
  /** Told how far it is, now and then. One amend may count from 0 more than once. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** A format's own facts, in the words of qemu-img's JSON (`cluster-size`, `compat`, …). */
export interface FormatInfo {
  readonly type: string;
  readonly clusterSizeBytes?: number;
  /** Where in the format's own address space VM state begins; absent: the format keeps none. */
  readonly vmStateOffset?: number;
  readonly dirty?: boolean;
  readonly corrupt?: boolean;
  readonly backingFilename?: string;
  readonly backingFormat?: string;
  /** Internal snapshots, each with the fields of qemu-img's JSON (`id`, `name`, `vm-state-size`, …). */
  readonly snapshots?: readonly Readonly<Record<string, number | string>>[];
  /** Dirty bitmaps stored in the image, in its order; absent: this version of the format has none. */
  readonly bitmaps?: readonly StoredBitmap[];
  /** Rows as qemu-img has them, in its order; nested records are allowed. */
  readonly data: Readonly<Record<string, unknown>>;
}

/** A dirty bitmap that an image keeps. */
export interface StoredBitmap {
  readonly name: string;
  /** Bytes of the disk that one bit stands for: a power of two. */
  readonly granularityBytes: number;
  /** `in-use` (nobody closed it: its bits mean nothing), `auto` (it records from the start). */
  readonly flags: readonly ("in-use" | "auto")[];
}

/** What a repair may change: refcounts that are too high, or everything that is broken. */
export type RepairKind = "leaks" | "all";

/** Options of `check`. */
export interface CheckOptions extends RequestOptions {
  /** Mend what is found. Absent: only look. */
  readonly fix?: RepairKind;
  /**
   * Hears of everything that a repair takes out of the image, as it is decided, also of what `findings` has no
   * room for.
   */
  readonly onDropped?: (message: string) => void;
}

/** What a check found, behind a repair: what is left. Counts as in qemu-img's JSON. */
export interface CheckResult {
  readonly corruptions: number;
  readonly leaks: number;
  /** What a repair mended. Absent without one. */
  readonly corruptionsFixed?: number;
  readonly leaksFixed?: number;
  /** Things that could not be checked. */
  readonly checkErrors: number;
  readonly imageEndOffset?: number;
  readonly totalClusters?: number;
  readonly allocatedClusters?: number;
  readonly compressedClusters?: number;
  readonly fragmentedClusters?: number;
  /** One line each, in the order found; bounded, see `findingsOmitted`. */
  readonly findings: readonly CheckFinding[];
  readonly findingsOmitted: number;
}

/** One thing that is wrong with an image, or was: `repaired` without loss, `dropped` is gone from the image. */
export interface CheckFinding {
  readonly severity: "corruption" | "leak" | "error" | "repaired" | "dropped";
  readonly message: string;
}

/**
 * A child as its parent sees it. The graph's handles do tracking, alignment and permissions;
 * `directChild` gives one to whoever uses a driver alone.
 */
export interface BlockChild extends BlockIo {
  /** The child's node name, for messages. */
  readonly nodeName: string;
  /** All of it: to the operating system, then to disk, this node and those below it. */
  flush(options?: RequestOptions): MaybePromise<void>;
  /**
   * Tells the child's driver of a moment in the parent's work. Absent or undefined when it does not listen: a
   * parent that asks first pays nothing.
   */
  readonly debugEvent?: ((event: DebugEvent) => MaybePromise<void>) | undefined;
}

/** Makes a driver usable as a child without a graph. The driver's limits are then the caller's to keep. */
export function directChild(driver: BlockDriver, nodeName: string = driver.driverName): BlockChild {
  return {
    nodeName,
    get lengthBytes() {
      return driver.lengthBytes;
    },
    get limits() {
      return driver.limits;
    },
    get capabilities() {
      return driver.capabilities;
    },
    readv: (offset, target, options) => driver.readv(offset, target, options),
    writev: (offset, source, options) => driver.writev(offset, source, options),
    writeZeroes: (offset, length, options) => driver.writeZeroes(offset, length, options),
    discard: (offset, length, options) => driver.discard(offset, length, options),
    blockStatus: (offset, length, options) => driver.blockStatus(offset, length, options),
    truncate: (length, options) => driver.truncate(length, options),
    debugEvent: driver.debugEvent?.bind(driver),
    async flush() {
      await driver.flushToOs();
      await driver.flushToDisk();
    },
  };
}
