/**
 * Checking one L2 table: what it refers to, and whether its entries keep the rules.
 *
 * Above: l1-walk.ts. Below: references.ts, stored-refcounts.ts.
 *
 * 1. A table that several L1 entries name is looked at once; each thing found counts as often as
 *    it is named.
 * 2. The COPIED flag is judged only for tables that the active L1 table names: elsewhere it means
 *    nothing [C13].
 * 3. Clusters of an external data file have no refcounts, and count as used once: their offsets and COPIED flags are
 *    judged, and none is compressed.
 *
 * Source: the qcow2 specification, "Cluster mapping" and "Extended L2 Entries".
 */
import { hex, viewOf } from "@blocklayer/bytes";
import {
  compressedLengthOf,
  compressedOffsetOf,
  COMPRESSED_HIGH,
  COPIED_HIGH,
  EXTENDED_ENTRY_BYTES,
  type Geometry,
  hostOffsetOf,
  isCopied,
  namesFirstExternal,
  L2_RESERVED_HIGH,
  L2_RESERVED_LOW,
  OFFSET_HIGH_MASK,
  ZERO_LOW,
} from "../geometry.js";
import type { Findings } from "./findings.js";
import type { References } from "./references.js";
import type { StoredRefcounts } from "./stored-refcounts.js";

/** How many L1 entries name an L2 table. */
export interface L2Use {
  /** Entries of the active L1 table. */
  active: number;
  /** Entries of snapshots' L1 tables. */
  inactive: number;
  /** Entries of the active L1 table under which the COPIED flag counts: those with an offset. */
  judged: number;
}

/** Clusters as `qemu-img check` counts them, of the active table only. */
export interface ClusterTally {
  allocated: number;
  compressed: number;
  /** Clusters that do not follow their neighbour in the file; compressed ones always count. */
  fragmented: number;
}

/** What a walk reads and adds to. */
export interface WalkContext {
  readonly geometry: Geometry;
  readonly references: References;
  readonly stored: StoredRefcounts;
  readonly findings: Findings;
  /** The COPIED flags that are wrong; reported behind the refcounts, as in QEMU. */
  readonly copiedFindings: Findings;
  readonly tally: ClusterTally;
}

/**
 * The entry as QEMU prints it.
 *
 * @example entryText(0x80000000, 0x50000) // "8000000000050000"
 */
export function entryText(high: number, low: number): string {
  return ((BigInt(high) << 32n) | BigInt(low)).toString(16);
}

/** Checks the bytes of one L2 table. */
export function walkL2(context: WalkContext, use: L2Use, bytes: Uint8Array): void {
  const { clusterSize, externalData, l2EntrySize, subclusters } = context.geometry;
  const view = viewOf(bytes);
  let expected = 0;
  let allocated = 0;
  let fragments = 0;
  for (let at = 0; at + l2EntrySize <= bytes.length; at += l2EntrySize) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (externalData && (high & COMPRESSED_HIGH) !== 0) {
      refuseCompressed(context, use, at / l2EntrySize, high, low);
      continue;
    }
    if (subclusters > 1 && !walkBitmap(context, use, view, at)) continue;
    if (high === 0 && low === 0) continue;
    if ((high & COMPRESSED_HIGH) !== 0) {
      walkCompressed(context, use, high, low);
      continue;
    }
    const offset = hostOffsetOf(high, low);
    if (offset !== 0 || namesFirstExternal(high, low, context.geometry)) {
      allocated++;
      if (expected !== 0 && offset !== expected) fragments++;
      expected = offset + clusterSize;
      if (!externalData && isPlain(context, use, high, low, offset)) continue;
    }
    const hasData = subclusters === 1 ? (low & ZERO_LOW) === 0 : view.getUint32(at + 12) !== 0;
    walkStandard(context, use, high, low, offset, hasData);
  }
  context.tally.allocated += allocated * use.active;
  context.tally.fragmented += fragments * use.active;
}

/**
 * The common case, without detours: an aligned cluster within the file, in use once, COPIED set.
 *
 * @returns `false` when the entry is not of this kind, and nothing was counted
 */
function isPlain(
  { geometry, references, stored }: WalkContext,
  use: L2Use,
  high: number,
  low: number,
  offset: number,
): boolean {
  if ((high & ~OFFSET_HIGH_MASK) >> 0 !== COPIED_HIGH >> 0) return false;
  if ((low & (geometry.clusterSize - 1) & ~ZERO_LOW) !== 0) return false;
  const cluster = offset / geometry.clusterSize;
  return (
    cluster < references.wholeClusterCount &&
    (use.judged === 0 || stored.get(cluster) === 1) &&
    references.addCluster(cluster, use.active + use.inactive)
  );
}

/**
 * Checks the bitmap of an extended entry [C14].
 *
 * @returns false when nothing else of the entry counts: QEMU then takes no cluster for referenced
 */
function walkBitmap(context: WalkContext, use: L2Use, view: DataView, at: number): boolean {
  const { findings, geometry } = context;
  const times = use.active + use.inactive;
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  const zeroes = view.getUint32(at + 8);
  const allocated = view.getUint32(at + 12);
  if (zeroes === 0 && allocated === 0) return true;
  if ((high & COMPRESSED_HIGH) !== 0) {
    checkCompressedFlag(context, high, low, times);
    const index = at / EXTENDED_ENTRY_BYTES;
    const what = `compressed cluster ${index} with non-zero subcluster allocation bitmap`;
    findings.corruption(() => `ERROR ${what}, entry=0x${entryText(high, low)}`, times);
    return false;
  }
  const offset = hostOffsetOf(high, low);
  const hosted = offset !== 0 || (geometry.externalData && isCopied(high));
  if (!hosted && allocated !== 0) {
    const what = "Unallocated cluster has non-zero subcluster allocation map";
    findings.corruption(() => `ERROR: ${what}`, times);
  } else if ((zeroes & allocated) !== 0) {
    const what = "Allocated cluster has corrupted subcluster allocation bitmap";
    findings.corruption(() => `ERROR offset=${offset.toString(16)}: ${what}`, times);
  }
  return true;
}

/** A compressed cluster is never written in place. */
function checkCompressedFlag(
  { geometry, findings }: WalkContext,
  high: number,
  low: number,
  times: number,
): void {
  if (!isCopied(high)) return;
  const offset = hex(compressedOffsetOf(geometry, high, low));
  const message = `ERROR: coffset=${offset}: copied flag must never be set for compressed clusters`;
  findings.corruption(() => message, times);
}

/** An external data file has no compressed clusters: QEMU takes nothing for referenced then. */
function refuseCompressed(
  context: WalkContext,
  use: L2Use,
  index: number,
  high: number,
  low: number,
): void {
  const times = use.active + use.inactive;
  checkCompressedFlag(context, high, low, times);
  const what = `compressed cluster ${index} with data file`;
  context.findings.corruption(() => `ERROR ${what}, entry=0x${entryText(high, low)}`, times);
}

function walkCompressed(context: WalkContext, use: L2Use, high: number, low: number): void {
  const { geometry, tally } = context;
  const times = use.active + use.inactive;
  const offset = compressedOffsetOf(geometry, high, low);
  checkCompressedFlag(context, high, low, times);
  context.references.add(offset, compressedLengthOf(geometry, high, low), times);
  tally.allocated += use.active;
  tally.compressed += use.active;
  tally.fragmented += use.active;
}

function walkStandard(
  context: WalkContext,
  use: L2Use,
  high: number,
  low: number,
  offset: number,
  hasData: boolean,
): void {
  const { geometry, findings, references, stored, copiedFindings } = context;
  const times = use.active + use.inactive;
  const text = (): string => entryText(high, low);
  if ((high & L2_RESERVED_HIGH) !== 0 || (low & L2_RESERVED_LOW) !== 0) {
    findings.corruption(() => `ERROR found l2 entry with reserved bits set: ${text()}`, times);
  }
  if (offset === 0) return;
  if (offset % geometry.clusterSize !== 0) {
    const what = hasData ? "Data" : "Preallocated";
    const rule = "cluster is not properly aligned; L2 entry corrupted.";
    findings.corruption(() => `ERROR offset=${offset.toString(16)}: ${what} ${rule}`, times);
  }
  if (!geometry.externalData) references.add(offset, geometry.clusterSize, times);
  if (use.judged === 0) return;
  const cluster = Math.floor(offset / geometry.clusterSize);
  // Clusters of a data file are not counted: each has its one guest cluster.
  const refcount = geometry.externalData ? 1 : stored.get(cluster);
  if (refcount === undefined || (refcount === 1) === isCopied(high)) return;
  copiedFindings.corruption(
    () => `ERROR OFLAG_COPIED data cluster: l2_entry=${text()} refcount=${refcount}`,
    use.judged,
  );
}
