/**
 * A snapshot's L1 table, read and checked, and the disk that it maps.
 *
 * Above: apply, delete, open-snapshot. Below: read-tables.
 *
 * What a snapshot says of itself is checked here once: whoever goes on works with an L1 table that lies at a cluster,
 * has at most 32 MiB, and a disk length that a header could have.
 *
 * Source: the qcow2 specification, "Snapshots".
 */
import type { BlockChild } from "@blocklayer/block-api";
import { CorruptImageError, hex, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import { ENTRY_BYTES, geometryOf, MAX_L1_BYTES } from "../geometry.js";
import type { Qcow2Header } from "../header/header.js";
import { L1Table } from "../mapping/l1-table.js";
import { readTable } from "../read-tables.js";
import type { SnapshotEntry } from "./table.js";

/** What a snapshot shows. */
export interface SnapshotDisk {
  /** As stored. */
  readonly l1: L1Table;
  /** `virtualSize` of a header whose disk this were. */
  readonly virtualSize: number;
  /** Entries that the L1 table of such a header has: those of `l1`, and as many as the disk's length needs. */
  readonly l1Size: number;
}

/** Reads it. @throws CorruptImageError that names the snapshot */
export async function readSnapshotDisk(
  file: BlockChild,
  header: Qcow2Header,
  entry: SnapshotEntry,
): Promise<SnapshotDisk> {
  const refuse = (rule: string): never => {
    const structure = `snapshot table entry ${entry.id} (${entry.name})`;
    throw new CorruptImageError({ structure, hostOffset: header.snapshotsOffset, rule });
  };
  const { l1TableOffset, l1Size: stored, isAligned } = entry;
  const { maxHostOffset } = geometryOf(header);
  if (!isAligned || l1TableOffset > maxHostOffset) {
    refuse(`L1 table offset ${hex(l1TableOffset)} is not that of a cluster`);
  }
  const lengthBytes = stored * ENTRY_BYTES;
  if (lengthBytes > MAX_L1_BYTES) refuse(`an L1 table of ${stored} entries is longer than 32 MiB`);
  if (stored > 0 && l1TableOffset + lengthBytes > file.lengthBytes + 2 ** header.clusterBits - 1) {
    refuse(`the L1 table at ${hex(l1TableOffset)} lies behind the end of the file`);
  }
  const virtualSize = virtualSizeOf(header, entry, refuse);
  const { l1Size: needed } = geometryOf({ ...header, virtualSize });
  if (needed * ENTRY_BYTES > MAX_L1_BYTES) {
    refuse(`a disk of ${virtualSize} bytes needs an L1 table longer than 32 MiB`);
  }
  const bytes = await readTable(file, l1TableOffset, lengthBytes);
  const l1Size = Math.max(stored, needed);
  return { l1: L1Table.decode(l1TableOffset, bytes), virtualSize, l1Size };
}

/** The header's own size where that is the same disk length: it may end with a part of a sector. */
function virtualSizeOf(
  header: Qcow2Header,
  { diskBytes }: SnapshotEntry,
  refuse: (rule: string) => never,
): number {
  if (diskBytes === undefined || diskBytes === geometryOf(header).virtualSize) {
    return header.virtualSize;
  }
  if (!Number.isSafeInteger(diskBytes)) refuse("the disk is longer than 2^53 - 1 bytes");
  if (diskBytes % SECTOR_SIZE_BYTES !== 0) {
    refuse(`a disk of ${diskBytes} bytes does not end with a sector`);
  }
  return diskBytes;
}
