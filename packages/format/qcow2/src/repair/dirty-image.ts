/**
 * Images that were not closed: their refcounts may be stale, and are made right before anybody writes [C8].
 *
 * Above: open.ts, driver.ts (`reopen`). Below: repair.ts.
 */
import type { BlockChild } from "@blocklayer/block-api";
import { BlockError } from "@blocklayer/bytes";
import { refuseWriting } from "../header/features.js";
import { hasFeature, INCOMPATIBLE, type Qcow2Header } from "../header/header.js";
import { repairQcow2 } from "./repair.js";

/**
 * Refuses a corrupt image, and repairs a dirty one.
 *
 * @returns the header, as it is on the disk then
 * @throws BlockError `EACCES` for a corrupt image, `EIO` for a dirty one that cannot be repaired; those of the file
 */
export async function readyForWriting(
  file: BlockChild,
  header: Qcow2Header,
  nodeName: string,
): Promise<Qcow2Header> {
  refuseWriting(header, nodeName);
  if (!hasFeature(header.incompatible, INCOMPATIBLE.dirty)) return header;
  const { result, header: repaired } = await repairQcow2(file, header, { fix: "all" });
  if (!hasFeature(repaired.incompatible, INCOMPATIBLE.dirty)) return repaired;
  const first = result.findings.find(({ severity }) => severity === "error")?.message;
  const left = `${result.corruptions} errors are left${first === undefined ? "" : `: ${first}`}`;
  throw new BlockError("EIO", `Could not repair dirty image: ${left}`, {
    op: "open",
    node: nodeName,
  });
}
