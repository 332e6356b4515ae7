/**
 * The word that names an internal snapshot on a command line (`convert -l`).
 *
 * Above: the tool. Below: nothing; a pure function.
 */
import { parseKeyValues, type SnapshotSelector } from "@blocklayer/block-api";
import { BlockError } from "@blocklayer/bytes";

/**
 * Reads `snapshot.id=ID,snapshot.name=NAME`, one of the two, or else an id or name as it stands.
 *
 * @throws BlockError `EINVAL` for another key
 * @example parseSnapshotParam("snapshot.name=before") // { name: "before" }
 */
export function parseSnapshotParam(text: string): SnapshotSelector {
  if (!text.startsWith("snapshot.")) return text;
  const found: { id?: string; name?: string } = {};
  for (const [key, value] of parseKeyValues(text)) {
    if (key === "snapshot.id") found.id = String(value);
    else if (key === "snapshot.name") found.name = String(value);
    else throw new BlockError("EINVAL", `Invalid parameter '${key}'`, { op: "load snapshot" });
  }
  return found;
}
