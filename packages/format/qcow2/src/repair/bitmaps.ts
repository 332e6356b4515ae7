/**
 * Bitmaps that cannot be trusted: they are declared stale.
 *
 * Above: repair.ts. Below: check/bitmaps.ts, planned-file.ts.
 *
 * A bitmap says which parts of the disk changed; one that is damaged could make a backup miss some. Without its
 * autoclear bit nobody believes the extension, and what it names is free. Guest data is not touched.
 *
 * Source: the qcow2 specification, "Bitmaps".
 */
import type { RequestOptions } from "@blocklayer/block-api";
import { viewOf } from "@blocklayer/bytes";
import { checkBitmaps } from "../check/bitmaps.js";
import { CHUNK_LENGTH } from "../check/counters.js";
import { Findings } from "../check/findings.js";
import { References } from "../check/references.js";
import { TableReader } from "../check/table-reader.js";
import { geometryOf } from "../geometry.js";
import { AUTOCLEAR, type Qcow2Header } from "../header/header.js";
import type { PlannedFile } from "./planned-file.js";

/** Where `autoclear_features` lies. */
const HEADER_AUTOCLEAR_POSITION = 88;

/** What became of the bitmaps. */
export interface MendedBitmaps {
  readonly header: Qcow2Header;
  readonly mended: number;
  /** Host clusters that the bitmaps take. */
  readonly clusters: readonly number[];
}

/** Drops bitmaps that break a rule, all together: their directory is one. */
export async function mendBitmaps(
  plan: PlannedFile,
  header: Qcow2Header,
  findings: Findings,
  options: RequestOptions,
): Promise<MendedBitmaps> {
  const geometry = geometryOf(header);
  const found = new Findings();
  const references = new References(geometry, plan.lengthBytes, found);
  const reader = new TableReader(plan.child, found, options);
  await checkBitmaps(header, geometry, reader, references, found);
  if (found.corruptions + found.checkErrors === 0) {
    return { header, mended: 0, clusters: clustersIn(references) };
  }
  const autoclear = header.autoclear & ~AUTOCLEAR.bitmaps;
  const field = new Uint8Array(8);
  viewOf(field).setBigUint64(0, autoclear);
  await plan.patch(HEADER_AUTOCLEAR_POSITION, field);
  const why = found.list[0]?.message ?? "they cannot be read";
  findings.dropped(() => `Dropping all bitmaps: ${why.replace(/^ERROR:? /, "")}`);
  return { header: { ...header, autoclear }, mended: 1, clusters: [] };
}

function clustersIn({ counters }: References): number[] {
  const clusters: number[] = [];
  for (const index of counters.chunkIndices()) {
    counters.chunk(index)?.forEach((count, at) => {
      if (count !== 0) clusters.push(index * CHUNK_LENGTH + at);
    });
  }
  return clusters;
}
