/**
 * Looking for broken metadata: the whole of it, read-only.
 *
 * Above: the driver's `check`. Below: the other files of this folder.
 *
 *     header ─▶ stored refcounts ─▶ references: active L1, snapshots, tables, bitmaps, L2
 *            ─▶ refcount blocks ─▶ compare ─▶ COPIED flags
 *
 * 1. Counts are those of `qemu-img check`, and so are the words where they help.
 * 2. Time and memory are bounded by what the file stores, never by its length or by what the image claims:
 *    table-reader.ts bounds the first, counters.ts the second.
 * 3. The image must not change meanwhile, and what the driver has not written back is not seen.
 *
 * Source: the qcow2 specification.
 */
import type { BlockChild, CheckResult, RequestOptions } from "@blocklayer/block-api";
import { divideRoundUp, hex } from "@blocklayer/bytes";
import { ENTRY_BYTES, type Geometry, geometryOf, MAX_L1_BYTES } from "../geometry.js";
import type { Qcow2Header } from "../header/header.js";
import { isIncomplete, readSnapshotTable } from "../snapshot/table.js";
import { checkBitmaps } from "./bitmaps.js";
import { checkRefcountBlocks, compareRefcounts } from "./compare.js";
import { Findings } from "./findings.js";
import { L1Walk } from "./l1-walk.js";
import type { ClusterTally } from "./l2-walk.js";
import { References } from "./references.js";
import { StoredRefcounts } from "./stored-refcounts.js";
import { TableReader } from "./table-reader.js";

/** What one look at an image has found out. */
export interface Examination {
  readonly geometry: Geometry;
  /** References to each cluster of the file. */
  readonly references: References;
  /** The refcounts that the file holds. */
  readonly stored: StoredRefcounts;
  /** All but the COPIED flags, and all but what comparing both shows. */
  readonly findings: Findings;
  readonly copiedFindings: Findings;
  readonly tally: ClusterTally;
}

/**
 * Checks an image.
 *
 * @param file - the image file; any byte range of it can be read
 * @param header - as decoded from it
 * @returns the counts, and the first findings in words
 * @throws BlockError `ENOMEM` when the refcounts of the file need more memory than a check may
 *   take, `ECANCELED`; never for what is wrong with the image
 */
export async function checkQcow2(
  file: BlockChild,
  header: Qcow2Header,
  options: RequestOptions = {},
): Promise<CheckResult> {
  const seen = await examine(file, header, options);
  const { geometry, references, stored, findings, copiedFindings } = seen;
  checkRefcountBlocks(geometry, references, stored, findings);
  const highest = compareRefcounts(geometry, references, stored, findings);
  findings.append(copiedFindings);
  return resultOf(findings, countsOf(seen, highest));
}

/**
 * Counts all references, and reads all refcounts. What refers to refcount blocks is not counted yet: that is
 * `checkRefcountBlocks`.
 *
 * @throws BlockError as `checkQcow2`
 */
export async function examine(
  file: BlockChild,
  header: Qcow2Header,
  options: RequestOptions,
  findings: Findings = new Findings(),
): Promise<Examination> {
  const geometry = geometryOf(header);
  const clusterCount = divideRoundUp(file.lengthBytes, geometry.clusterSize);
  const reader = new TableReader(file, findings, options);
  const references = new References(geometry, file.lengthBytes, findings);
  const stored = await StoredRefcounts.load(header, geometry, reader, clusterCount + 1);
  const tally: ClusterTally = { allocated: 0, compressed: 0, fragmented: 0 };
  const copiedFindings = new Findings();
  const context = { geometry, references, stored, findings, copiedFindings, tally };
  const walk = new L1Walk(context, reader);
  await countReferences(header, geometry, walk, reader, references, findings);
  return context;
}

/** The counts of a check that are not of findings. */
export function countsOf(
  { geometry, tally }: Examination,
  highestCluster: number,
): Partial<CheckResult> {
  return {
    imageEndOffset: (highestCluster + 1) * geometry.clusterSize,
    totalClusters: divideRoundUp(geometry.virtualSize, geometry.clusterSize),
    allocatedClusters: tally.allocated,
    compressedClusters: tally.compressed,
    fragmentedClusters: tally.fragmented,
  };
}

async function countReferences(
  header: Qcow2Header,
  geometry: Geometry,
  walk: L1Walk,
  reader: TableReader,
  references: References,
  findings: Findings,
): Promise<void> {
  const snapshots = await readSnapshotTable(header, {
    read: (hostOffset, lengthBytes) => reader.read("snapshot table", hostOffset, lengthBytes),
    refuse: (index, rule) =>
      findings.error(() => `ERROR snapshot table entry ${index} ${rule}; the rest is not checked`),
  });
  references.add(0, geometry.clusterSize);
  await walk.add(header.l1TableOffset, header.l1Size, true);
  if (geometry.externalData && header.snapshotCount > 0) {
    const what = `${header.snapshotCount} snapshots in image with data file`;
    findings.corruption(() => `ERROR ${what}`);
  }
  for (const [index, entry] of snapshots.entries.entries()) {
    if (isIncomplete(header, entry)) {
      findings.corruption(() => `ERROR snapshot table entry ${index} is incomplete`);
    }
    const what = `ERROR snapshot ${entry.id} (${entry.name})`;
    const { l1TableOffset, l1Size, isAligned } = entry;
    if (!isAligned) {
      const rule = "L1 table is not cluster aligned; snapshot table entry corrupted";
      findings.corruption(() => `${what} l1_offset=${hex(l1TableOffset)}: ${rule}`);
    } else if (l1Size * ENTRY_BYTES > MAX_L1_BYTES) {
      const rule = "L1 table is too large; snapshot table entry corrupted";
      findings.corruption(() => `${what} l1_size=${hex(l1Size)}: ${rule}`);
    } else if (l1Size > 0) await walk.add(l1TableOffset, l1Size, false);
  }
  await walk.finish();
  references.add(header.snapshotsOffset, snapshots.lengthBytes);
  references.add(header.refcountTableOffset, header.refcountTableClusters * geometry.clusterSize);
  await checkBitmaps(header, geometry, reader, references, findings);
}

/** The result that a list of findings makes. */
export function resultOf(findings: Findings, counts: Partial<CheckResult>): CheckResult {
  return {
    corruptions: findings.corruptions,
    leaks: findings.leaks,
    checkErrors: findings.checkErrors,
    ...counts,
    findings: findings.list,
    findingsOmitted: findings.omitted,
  };
}
