/**
 * Comparing the refcounts that an image stores with the references that it makes.
 *
 * Above: check.ts. Below: counters.ts.
 *
 * 1. Fewer than there are references: corruption, for the cluster can be freed under its user.
 *    More: a leak. Unknown: the cluster cannot be checked.
 * 2. Where neither side has a number nothing is looked at: a file may have 2^44 clusters and hold a few.
 *
 * Source: the qcow2 specification, "Host cluster management".
 */
import type { Geometry } from "../geometry.js";
import { CHUNK_LENGTH } from "./counters.js";
import type { Findings } from "./findings.js";
import type { References } from "./references.js";
import type { StoredRefcounts } from "./stored-refcounts.js";

/** Checks the entries of the refcount table, and counts the references that they make. */
export function checkRefcountBlocks(
  geometry: Geometry,
  references: References,
  stored: StoredRefcounts,
  findings: Findings,
): void {
  const { clusterSize } = geometry;
  for (const { index, hostOffset, hasReservedBits, isAligned } of stored.entries) {
    if (hasReservedBits) {
      findings.corruption(() => `ERROR refcount table entry ${index} has reserved bits set`);
    } else if (!isAligned) {
      const rest = "is not cluster aligned; refcount table entry corrupted";
      findings.corruption(() => `ERROR refcount block ${index} ${rest}`);
    } else if (hostOffset / clusterSize >= references.clusterCount) {
      findings.corruption(() => `ERROR refcount block ${index} is outside image`);
    } else {
      references.add(hostOffset, clusterSize);
      const count = references.counters.get(hostOffset / clusterSize);
      if (count === 1) continue;
      findings.corruption(() => `ERROR refcount block ${index} refcount=${count}`);
    }
  }
}

/**
 * Compares, cluster by cluster.
 *
 * @returns the highest cluster that is in use by either side
 */
export function compareRefcounts(
  geometry: Geometry,
  references: References,
  stored: StoredRefcounts,
  findings: Findings,
): number {
  const { refcountBlockEntries } = geometry;
  const clusterCount = references.clusterCount;
  const starts = startsOf(refcountBlockEntries, references, stored);
  let next = 0;
  let highest = 0;
  for (let first = 0; first < clusterCount; ) {
    while ((starts[next] ?? clusterCount) < first) next++;
    const end = Math.min(
      clusterCount,
      (Math.floor(first / CHUNK_LENGTH) + 1) * CHUNK_LENGTH,
      (Math.floor(first / refcountBlockEntries) + 1) * refcountBlockEntries,
    );
    if (stored.isUnknown(Math.floor(first / refcountBlockEntries))) {
      reportUnknown(first, end, findings);
      first = end;
      continue;
    }
    const chunk = Math.floor(first / CHUNK_LENGTH);
    if (hasNumbers(references, stored, chunk)) {
      highest = Math.max(highest, compareRange(references, stored, first, end, findings));
      first = end;
    } else first = Math.max(end, starts[next] ?? clusterCount);
  }
  return highest;
}

/** Where chunks with numbers and blocks that are unknown begin, ascending. */
function startsOf(
  refcountBlockEntries: number,
  references: References,
  stored: StoredRefcounts,
): readonly number[] {
  return [
    ...references.counters.chunkIndices().map((index) => index * CHUNK_LENGTH),
    ...stored.counters.chunkIndices().map((index) => index * CHUNK_LENGTH),
    ...[...stored.unknownBlocks].map((index) => index * refcountBlockEntries),
  ].sort((a, b) => a - b);
}

function hasNumbers(references: References, stored: StoredRefcounts, chunk: number): boolean {
  return (
    references.counters.chunk(chunk) !== undefined || stored.counters.chunk(chunk) !== undefined
  );
}

/** Within one chunk. Returns the highest cluster in use, or 0. */
function compareRange(
  references: References,
  stored: StoredRefcounts,
  first: number,
  end: number,
  findings: Findings,
): number {
  const index = Math.floor(first / CHUNK_LENGTH);
  const storedChunk = stored.counters.chunk(index);
  const foundChunk = references.counters.chunk(index);
  const base = index * CHUNK_LENGTH;
  let highest = 0;
  for (let cluster = first; cluster < end; cluster++) {
    const refcount = storedChunk?.[cluster - base] ?? 0;
    const found = foundChunk?.[cluster - base] ?? 0;
    if (refcount === 0 && found === 0) continue;
    highest = cluster;
    if (refcount === found) continue;
    const numbers = (): string => `cluster ${cluster} refcount=${refcount} reference=${found}`;
    if (refcount < found) findings.corruption(() => `ERROR ${numbers()}`);
    else findings.leak(() => `Leaked ${numbers()}`);
  }
  return highest;
}

function reportUnknown(first: number, end: number, findings: Findings): void {
  const range = `clusters ${first} to ${end - 1}`;
  const message = `ERROR: Can't get refcount for ${range}: the refcount block cannot be read`;
  findings.error(() => message, end - first);
}
