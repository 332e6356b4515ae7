/**
 * Moving an L1 table away from where it cannot stay: on other metadata, or behind the end of the file.
 *
 * Above: repair.ts. Below: planned-file.ts.
 *
 * The copy is appended; whoever names it (the header, the snapshot table) is switched with the rest of the plan, when
 * the copy is durable and counted.
 */
import { hex, viewOf, writeU64 } from "@blocklayer/bytes";
import type { Findings } from "../check/findings.js";
import { ENTRY_BYTES, type Geometry } from "../geometry.js";
import type { PlannedFile } from "./planned-file.js";
import type { L1Place } from "./tables.js";

/** Plans a copy of an L1 table. What the file does not have of it is zeroes in the copy. */
export async function relocateL1(
  plan: PlannedFile,
  { clusterSize }: Geometry,
  place: L1Place,
  findings: Findings,
): Promise<L1Place> {
  const { hostOffset: from, entryCount, owner, pointerAt } = place;
  const hostOffset = plan.append(
    await plan.readWritten(from, entryCount * ENTRY_BYTES),
    clusterSize,
  );
  const field = new Uint8Array(8);
  writeU64(viewOf(field), 0, hostOffset);
  await plan.patch(pointerAt, field);
  const where = `${owner === "" ? "active " : owner}L1 table at ${hex(from)}`;
  findings.repaired(
    () => `Repairing ${where}: it does not lie apart; copied to ${hex(hostOffset)}`,
  );
  return { ...place, hostOffset };
}
