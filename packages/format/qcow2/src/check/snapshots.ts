/**
 * The snapshot table, as far as a check needs it: where the snapshots' L1 tables are.
 *
 * Above: check.ts. Below: table-reader.ts.
 *
 * 1. The table is read up to MAX_TABLE_BYTES, and an entry's extra data up to MAX_EXTRA_BYTES, as
 *    in QEMU: lengths in the image never decide how much memory is taken.
 *
 * Source: the qcow2 specification, "Snapshots".
 */
import { viewOf } from "@blocklayer/bytes";
import type { Qcow2Header } from "../header/header.js";
import { MAX_SNAPSHOTS, SNAPSHOT_HEADER_BYTES } from "../geometry.js";
import type { Findings } from "./findings.js";
import type { TableReader } from "./table-reader.js";

const MAX_TABLE_BYTES: number = 1024 * MAX_SNAPSHOTS;
const MAX_EXTRA_BYTES = 1024;
/** Extra data of version 3: size of the VM state, size of the disk. */
const V3_EXTRA_BYTES = 16;
/** The table is read in pieces of this size until it ends. */
const PIECE_BYTES = 65536;

/** One snapshot, for a check. */
export interface SnapshotEntry {
  readonly id: string;
  readonly name: string;
  /** Beyond 2^53 - 1 only roughly right; such a table lies outside every file. */
  readonly l1TableOffset: number;
  readonly isAligned: boolean;
  readonly l1Size: number;
  readonly extraBytes: number;
}

/** The table, and how long it is. */
export interface SnapshotTable {
  readonly entries: readonly SnapshotEntry[];
  readonly lengthBytes: number;
}

/** Reads the snapshot table. What cannot be read is among the findings, and ends the table. */
export async function readSnapshotTable(
  header: Qcow2Header,
  reader: TableReader,
  findings: Findings,
): Promise<SnapshotTable> {
  const window = new TableWindow(reader, header.snapshotsOffset);
  const entries: SnapshotEntry[] = [];
  let at = 0;
  let lengthBytes = 0;
  for (let index = 0; index < header.snapshotCount; index++) {
    const head = await window.bytes(at, SNAPSHOT_HEADER_BYTES);
    if (head === undefined) break;
    const view = viewOf(head);
    const idBytes = view.getUint16(12);
    const nameBytes = view.getUint16(14);
    const extraBytes = view.getUint32(36);
    const textAt = at + SNAPSHOT_HEADER_BYTES + extraBytes;
    const end = textAt + idBytes + nameBytes;
    if (extraBytes > MAX_EXTRA_BYTES || end > MAX_TABLE_BYTES) {
      const rule = extraBytes > MAX_EXTRA_BYTES ? "has too much extra data" : "is too far out";
      findings.error(() => `ERROR snapshot table entry ${index} ${rule}; the rest is not checked`);
      break;
    }
    const l1TableOffset = view.getUint32(0) * 2 ** 32 + view.getUint32(4);
    const isAligned = view.getUint32(4) % 2 ** header.clusterBits === 0;
    const l1Size = view.getUint32(8);
    const text = await window.bytes(textAt, idBytes + nameBytes);
    if (text === undefined) break;
    const id = new TextDecoder().decode(text.subarray(0, idBytes));
    const name = new TextDecoder().decode(text.subarray(idBytes));
    entries.push({ id, name, l1TableOffset, isAligned, l1Size, extraBytes });
    lengthBytes = end;
    at = Math.ceil(end / 8) * 8;
  }
  return { entries, lengthBytes };
}

/** Whether an entry lacks the extra data that version 3 requires. */
export function isIncomplete(header: Qcow2Header, entry: SnapshotEntry): boolean {
  return header.version === 3 && entry.extraBytes < V3_EXTRA_BYTES;
}

/** A view of the table that moves on as it is read. */
class TableWindow {
  readonly #reader: TableReader;
  readonly #tableOffset: number;
  #start = 0;
  #bytes = new Uint8Array(0);

  constructor(reader: TableReader, tableOffset: number) {
    this.#reader = reader;
    this.#tableOffset = tableOffset;
  }

  /** A range of the table, zeroes behind the end of the file; `undefined` when reading failed. */
  async bytes(at: number, lengthBytes: number): Promise<Uint8Array | undefined> {
    if (at + lengthBytes > this.#start + this.#bytes.length || at < this.#start) {
      const wanted = Math.max(PIECE_BYTES, lengthBytes);
      const read = await this.#reader.read("snapshot table", this.#tableOffset + at, wanted);
      if (read === undefined) return undefined;
      this.#start = at;
      this.#bytes = new Uint8Array(wanted);
      this.#bytes.set(read);
    }
    return this.#bytes.subarray(at - this.#start, at - this.#start + lengthBytes);
  }
}
