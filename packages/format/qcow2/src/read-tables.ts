/**
 * Reading the tables that stay in memory.
 *
 * Above: open.ts, activation.ts, driver.ts (`reopen`). Below: the file child.
 *
 * The header was checked: no table is longer than its limit. What the file does not have is zero.
 */
import type { BlockChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { ENTRY_BYTES, geometryOf, type HostOffset } from "./geometry.js";
import type { Qcow2Header } from "./header/header.js";
import { L1Table } from "./mapping/l1-table.js";
import { RefcountTable } from "./refcount/table.js";

/** All of them. */
export async function readTables(
  file: BlockChild,
  header: Qcow2Header,
  readOnly: boolean,
): Promise<{ l1: L1Table; refcountTable: RefcountTable }> {
  const l1Bytes = await readTable(file, header.l1TableOffset, header.l1Size * ENTRY_BYTES);
  const l1 = L1Table.decode(header.l1TableOffset, l1Bytes);
  return { l1, refcountTable: await readRefcountTable(file, header, readOnly) };
}

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
