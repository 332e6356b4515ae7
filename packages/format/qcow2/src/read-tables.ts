/**
 * Reading the tables that stay in memory.
 *
 * Above: open.ts, driver.ts (`reopen`). Below: the file child.
 *
 * The header was checked: no table is longer than its limit. What the file does not have is zero.
 */
import type { BlockChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { geometryOf, type HostOffset } from "./geometry.js";
import type { Qcow2Header } from "./header/header.js";
import { RefcountTable } from "./refcount/table.js";

/** The refcount table of an image that is to be written; an empty one for readers. */
export async function readRefcountTable(
  file: BlockChild,
  header: Qcow2Header,
  readOnly: boolean,
): Promise<RefcountTable> {
  const geometry = geometryOf(header);
  const { refcountTableOffset, refcountTableClusters } = header;
  const length = readOnly ? 0 : refcountTableClusters * geometry.clusterSize;
  if (!readOnly) await file.debugEvent?.("reftable_load");
  const bytes = await readTable(file, refcountTableOffset, length);
  return RefcountTable.decode(refcountTableOffset, bytes, geometry);
}

/** The bytes of a table; what the file does not have is zero. */
export async function readTable(
  file: BlockChild,
  at: HostOffset,
  length: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const inside = Math.min(length, Math.max(0, file.lengthBytes - at));
  if (inside > 0) await file.readv(at, IoVector.of(bytes.subarray(0, inside)));
  return bytes;
}
