/**
 * The snapshot table: its bytes to entries, and back.
 *
 * Above: check/check.ts, info.ts, stored-table.ts. Below: whoever reads the file for them.
 *
 * 1. The table is read up to MAX_TABLE_BYTES, and an entry's extra data up to MAX_EXTRA_BYTES, as in
 *    QEMU: lengths in the image never decide how much memory is taken.
 * 2. What the file does not have reads as zeroes: entries behind its end are there, and empty.
 * 3. An entry that breaks these bounds ends the table, since nobody knows where the next one begins.
 *    The caller's `refuse` hears of it; it is never passed over.
 * 4. An entry keeps its bytes, so that a table that is written again loses nothing of it: extra data that
 *    nobody knows, texts that are no UTF-8.
 *
 * Source: the qcow2 specification, "Snapshots".
 */
import type { InternalSnapshot } from "@blocklayer/block-api";
import { alignUp, encodeName, viewOf, writeU64 } from "@blocklayer/bytes";
import { MAX_SNAPSHOTS, SNAPSHOT_HEADER_BYTES } from "../geometry.js";
import { decodeText } from "../header/extensions.js";
import type { Qcow2Header } from "../header/header.js";

/** Longest table. */
export const MAX_TABLE_BYTES: number = 1024 * MAX_SNAPSHOTS;
/** Longest extra data of one entry. */
const MAX_EXTRA_BYTES = 1024;
/** Extra data of version 3: size of the VM state, size of the disk. */
const V3_EXTRA_BYTES = 16;
/** Extra data up to the instruction count. */
const ICOUNT_EXTRA_BYTES = 24;
/** QEMU cuts longer texts off here. */
const MAX_ID_BYTES = 127;
export const MAX_NAME_BYTES = 255;
const ENTRY_ALIGNMENT = 8;
/** The table is read in pieces of this size until it ends. */
const PIECE_BYTES = 65536;
/** The instruction count of a machine that counts none. */
const NO_ICOUNT = -1n;

/** One snapshot. */
export interface SnapshotEntry extends InternalSnapshot {
  /** Beyond 2^53 - 1 only roughly right; such a table lies outside every file. */
  readonly l1TableOffset: number;
  /** The L1 table begins at a cluster. */
  readonly isAligned: boolean;
  readonly l1Size: number;
  readonly extraBytes: number;
  /** The entry as stored, without padding. */
  readonly bytes: Uint8Array;
}

/** What a new entry says. */
export type NewSnapshotEntry = Omit<
  SnapshotEntry,
  "isAligned" | "extraBytes" | "bytes" | "diskBytes"
> & { readonly diskBytes: number };

/** The table, and how long it is. */
export interface SnapshotTable {
  readonly entries: readonly SnapshotEntry[];
  readonly lengthBytes: number;
}

/** How the table's bytes are come by. */
export interface SnapshotSource {
  /** The bytes at a host offset, or what the file has of them; `undefined` ends the table. */
  read(hostOffset: number, lengthBytes: number): Promise<Uint8Array | undefined>;
  /** Hears which entry ends the table, and which rule it breaks. */
  refuse(index: number, rule: string): void;
}

/** Reads the snapshot table. */
export async function readSnapshotTable(
  header: Qcow2Header,
  source: SnapshotSource,
): Promise<SnapshotTable> {
  const window = new TableWindow(source, header.snapshotsOffset);
  const entries: SnapshotEntry[] = [];
  let at = 0;
  let lengthBytes = 0;
  for (let index = 0; index < header.snapshotCount; index++) {
    const head = await window.bytes(at, SNAPSHOT_HEADER_BYTES);
    if (head === undefined) break;
    const view = viewOf(head);
    const textBytes = view.getUint16(12) + view.getUint16(14);
    const extraBytes = view.getUint32(36);
    const end = at + SNAPSHOT_HEADER_BYTES + extraBytes + textBytes;
    if (extraBytes > MAX_EXTRA_BYTES || end > MAX_TABLE_BYTES) {
      const isFar = extraBytes <= MAX_EXTRA_BYTES;
      source.refuse(index, isFar ? "is too far out" : "has too much extra data");
      break;
    }
    const bytes = await window.bytes(at, end - at);
    if (bytes === undefined) break;
    entries.push(decodeEntry(bytes, header.clusterBits));
    lengthBytes = end;
    at = alignUp(end, ENTRY_ALIGNMENT);
  }
  return { entries, lengthBytes };
}

/** Whether an entry lacks the extra data that version 3 requires. */
export function isIncomplete(header: Qcow2Header, entry: SnapshotEntry): boolean {
  return header.version === 3 && entry.extraBytes < V3_EXTRA_BYTES;
}

/** An entry as QEMU 7.2 writes it: with all the extra data that version 3 knows. */
export function encodeEntry(entry: NewSnapshotEntry): SnapshotEntry {
  const id = encodeName(entry.id);
  const name = encodeName(entry.name);
  const idAt = SNAPSHOT_HEADER_BYTES + ICOUNT_EXTRA_BYTES;
  const bytes = new Uint8Array(idAt + id.length + name.length);
  const view = viewOf(bytes);
  writeU64(view, 0, entry.l1TableOffset);
  view.setUint32(8, entry.l1Size);
  view.setUint16(12, id.length);
  view.setUint16(14, name.length);
  view.setUint32(16, entry.dateSeconds);
  view.setUint32(20, entry.dateNanoseconds);
  view.setBigUint64(24, entry.vmClockNanoseconds);
  // The old field has 32 bits: 0 where they do not do, since the new one counts.
  view.setUint32(32, entry.vmStateBytes < 2n ** 32n ? Number(entry.vmStateBytes) : 0);
  view.setUint32(36, ICOUNT_EXTRA_BYTES);
  view.setBigInt64(SNAPSHOT_HEADER_BYTES, entry.vmStateBytes);
  writeU64(view, SNAPSHOT_HEADER_BYTES + 8, entry.diskBytes);
  view.setBigInt64(SNAPSHOT_HEADER_BYTES + 16, entry.icount ?? NO_ICOUNT);
  bytes.set(id, idAt);
  bytes.set(name, idAt + id.length);
  return { ...entry, isAligned: true, extraBytes: ICOUNT_EXTRA_BYTES, bytes };
}

/** The table of these entries, each as it was. The last one is not padded, as in QEMU. */
export function encodeTable(entries: readonly SnapshotEntry[]): Uint8Array {
  let lengthBytes = 0;
  for (const { bytes } of entries) {
    lengthBytes = alignUp(lengthBytes, ENTRY_ALIGNMENT) + bytes.length;
  }
  const table = new Uint8Array(lengthBytes);
  let at = 0;
  for (const { bytes } of entries) {
    table.set(bytes, at);
    at = alignUp(at + bytes.length, ENTRY_ALIGNMENT);
  }
  return table;
}

/** Requires: the bytes are one whole entry, with the lengths that it names. */
function decodeEntry(bytes: Uint8Array, clusterBits: number): SnapshotEntry {
  const view = viewOf(bytes);
  const extraBytes = view.getUint32(36);
  const idAt = SNAPSHOT_HEADER_BYTES + extraBytes;
  const nameAt = idAt + view.getUint16(12);
  const extraAt = SNAPSHOT_HEADER_BYTES;
  const vmStateBytes = extraBytes < 8 ? BigInt(view.getUint32(32)) : view.getBigInt64(extraAt);
  const icount = extraBytes < ICOUNT_EXTRA_BYTES ? NO_ICOUNT : view.getBigInt64(extraAt + 16);
  return {
    id: decodeText(bytes.subarray(idAt, Math.min(nameAt, idAt + MAX_ID_BYTES))),
    name: decodeText(bytes.subarray(nameAt, nameAt + MAX_NAME_BYTES)),
    l1TableOffset: view.getUint32(0) * 2 ** 32 + view.getUint32(4),
    isAligned: view.getUint32(4) % 2 ** clusterBits === 0,
    l1Size: view.getUint32(8),
    extraBytes,
    bytes,
    ...(extraBytes < V3_EXTRA_BYTES ? {} : { diskBytes: readDiskBytes(view) }),
    dateSeconds: view.getUint32(16),
    dateNanoseconds: view.getUint32(20),
    vmClockNanoseconds: view.getBigUint64(24),
    vmStateBytes,
    ...(icount === NO_ICOUNT ? {} : { icount }),
  };
}

/** Bytes of the disk. Beyond 2^53 - 1 only roughly right; whoever uses it compares it with that. */
function readDiskBytes(view: DataView): number {
  const at = SNAPSHOT_HEADER_BYTES + 8;
  return view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
}

/** A view of the table that moves on as it is read. */
class TableWindow {
  readonly #source: SnapshotSource;
  readonly #tableOffset: number;
  #start = 0;
  #bytes = new Uint8Array(0);

  constructor(source: SnapshotSource, tableOffset: number) {
    this.#source = source;
    this.#tableOffset = tableOffset;
  }

  /** A range of the table, zeroes behind the end of the file; `undefined` when reading failed. */
  async bytes(at: number, lengthBytes: number): Promise<Uint8Array | undefined> {
    if (at + lengthBytes > this.#start + this.#bytes.length || at < this.#start) {
      const wanted = Math.max(PIECE_BYTES, lengthBytes);
      const read = await this.#source.read(this.#tableOffset + at, wanted);
      if (read === undefined) return undefined;
      this.#start = at;
      this.#bytes = new Uint8Array(wanted);
      this.#bytes.set(read);
    }
    return this.#bytes.subarray(at - this.#start, at - this.#start + lengthBytes);
  }
}
