/**
 * Mending the snapshot table: entries that are cut short, that nobody can read, that name no usable L1 table.
 *
 * Above: repair.ts. Below: planned-file.ts.
 *
 * 1. A table that needs mending is written anew behind everything, and the header is switched to it. The old one stays
 *    as it is until nothing names it.
 * 2. A snapshot is dropped only when nobody can read it: its L1 table cannot be one, or where its entry begins is not
 *    known.
 * 3. Everything is bounded as in snapshot/table.ts.
 *
 * Source: the qcow2 specification, "Snapshots".
 */
import { alignUp, hex, viewOf, writeU64 } from "@blocklayer/bytes";
import type { Findings } from "../check/findings.js";
import {
  ENTRY_BYTES,
  geometryOf,
  type HostOffset,
  MAX_L1_BYTES,
  SNAPSHOT_HEADER_BYTES,
} from "../geometry.js";
import { decodeText } from "../header/extensions.js";
import type { Qcow2Header } from "../header/header.js";
import type { L1Place } from "./tables.js";
import type { PlannedFile } from "./planned-file.js";

const MAX_TABLE_BYTES = 64 * 2 ** 20;
const MAX_EXTRA_BYTES = 1024;
/** Extra data that version 3 requires: size of the VM state, size of the disk. */
const V3_EXTRA_BYTES = 16;
const ENTRY_ALIGNMENT = 8;
/** Where `nb_snapshots` and `snapshots_offset` lie in the header, side by side. */
const HEADER_SNAPSHOTS_POSITION = 60;

/** What mending came to. */
export interface MendedSnapshots {
  /** Naming the new table, when there is one. */
  readonly header: Qcow2Header;
  readonly places: readonly L1Place[];
  readonly lengthBytes: number;
  /** Of the table as it was, as far as it was understood. */
  readonly oldBytes: number;
  readonly mended: number;
}

/** One entry on its way. */
interface RawEntry {
  readonly bytes: Uint8Array;
  readonly place: L1Place;
}

/** Mends the snapshot table of a plan. */
export async function mendSnapshots(
  plan: PlannedFile,
  header: Qcow2Header,
  findings: Findings,
): Promise<MendedSnapshots> {
  if (header.snapshotCount === 0)
    return { header, places: [], lengthBytes: 0, oldBytes: 0, mended: 0 };
  const table = new SnapshotMender(plan, header, findings);
  await table.read();
  return table.finish();
}

class SnapshotMender {
  readonly #plan: PlannedFile;
  readonly #header: Qcow2Header;
  readonly #findings: Findings;
  readonly #kept: RawEntry[] = [];
  #mended = 0;
  /** Where the table ends, as far as it was understood. */
  #end = 0;

  constructor(plan: PlannedFile, header: Qcow2Header, findings: Findings) {
    this.#plan = plan;
    this.#header = header;
    this.#findings = findings;
  }

  async read(): Promise<void> {
    const { snapshotCount, snapshotsOffset } = this.#header;
    let at = 0;
    for (let index = 0; index < snapshotCount; index++) {
      const head = await this.#plan.read(snapshotsOffset + at, SNAPSHOT_HEADER_BYTES);
      const view = viewOf(head);
      const extraBytes = view.getUint32(36);
      const textBytes = view.getUint16(12) + view.getUint16(14);
      const end = at + SNAPSHOT_HEADER_BYTES + extraBytes + textBytes;
      const start = snapshotsOffset + at;
      if (end > MAX_TABLE_BYTES || start >= this.#plan.lengthBytes) {
        this.#drop(`snapshot table entry ${index} and those behind it: it is not in the file`);
        return;
      }
      const keptExtra = Math.min(extraBytes, MAX_EXTRA_BYTES);
      const front = await this.#plan.read(start, SNAPSHOT_HEADER_BYTES + keptExtra);
      const text = await this.#plan.read(
        start + SNAPSHOT_HEADER_BYTES + extraBytes,
        Math.max(1, textBytes),
      );
      if (keptExtra < extraBytes) {
        this.#repair(`snapshot table entry ${index} has too much extra data`);
      }
      if (snapshotsOffset + end > this.#plan.lengthBytes) {
        this.#repair(`snapshot table entry ${index} reaches behind the end of the file`);
      }
      this.#take(index, start, front, text.subarray(0, textBytes));
      this.#end = end;
      at = alignUp(end, ENTRY_ALIGNMENT);
    }
  }

  async finish(): Promise<MendedSnapshots> {
    const old = this.#kept.map(({ place }) => place);
    const mended = this.#mended;
    if (mended === 0) {
      return {
        header: this.#header,
        places: old,
        lengthBytes: this.#end,
        oldBytes: this.#end,
        mended,
      };
    }
    let lengthBytes = 0;
    for (const { bytes } of this.#kept)
      lengthBytes = alignUp(lengthBytes, ENTRY_ALIGNMENT) + bytes.length;
    const table = new Uint8Array(lengthBytes);
    const starts: number[] = [];
    let at = 0;
    for (const { bytes } of this.#kept) {
      at = alignUp(at, ENTRY_ALIGNMENT);
      starts.push(at);
      table.set(bytes, at);
      at += bytes.length;
    }
    const { clusterSize } = geometryOf(this.#header);
    const snapshotsOffset = table.length === 0 ? 0 : this.#plan.append(table, clusterSize);
    const snapshotCount = this.#kept.length;
    const field = new Uint8Array(12);
    viewOf(field).setUint32(0, snapshotCount);
    writeU64(viewOf(field), 4, snapshotsOffset);
    await this.#plan.patch(HEADER_SNAPSHOTS_POSITION, field);
    const header = { ...this.#header, snapshotCount, snapshotsOffset };
    const places = old.map((place, i) => ({
      ...place,
      pointerAt: snapshotsOffset + (starts[i] as number),
    }));
    return { header, places, lengthBytes, oldBytes: this.#end, mended };
  }

  #take(index: number, pointerAt: HostOffset, front: Uint8Array, text: Uint8Array): void {
    const view = viewOf(front);
    const idBytes = view.getUint16(12);
    const id = decodeText(text.subarray(0, idBytes));
    const name = decodeText(text.subarray(idBytes));
    const what = `snapshot ${id} (${name})`;
    const hostOffset = view.getUint32(0) * 2 ** 32 + view.getUint32(4);
    const entryCount = view.getUint32(8);
    const why = this.#whyUnusable(hostOffset, entryCount);
    if (why !== undefined) {
      this.#drop(`${what}: ${why}`);
      return;
    }
    let bytes = front;
    if (this.#header.version === 3 && front.length < SNAPSHOT_HEADER_BYTES + V3_EXTRA_BYTES) {
      this.#repair(`snapshot table entry ${index} is incomplete`);
      bytes = this.#completed(front);
    }
    const whole = new Uint8Array(bytes.length + text.length);
    whole.set(bytes);
    whole.set(text, bytes.length);
    const owner = `${what} `;
    viewOf(whole).setUint32(36, bytes.length - SNAPSHOT_HEADER_BYTES);
    this.#kept.push({ bytes: whole, place: { hostOffset, entryCount, owner, pointerAt } });
  }

  #whyUnusable(hostOffset: number, entryCount: number): string | undefined {
    const { clusterSize } = geometryOf(this.#header);
    const lengthBytes = entryCount * ENTRY_BYTES;
    if (hostOffset % clusterSize !== 0 || hostOffset > Number.MAX_SAFE_INTEGER) {
      return `its L1 table at ${hex(hostOffset)} is not cluster aligned`;
    }
    if (lengthBytes > MAX_L1_BYTES) return `its L1 table of ${entryCount} entries is too large`;
    return undefined;
  }

  /** An entry with the extra data that version 3 requires: what version 2 has of it, and the size of the disk. */
  #completed(front: Uint8Array): Uint8Array {
    const bytes = new Uint8Array(SNAPSHOT_HEADER_BYTES + V3_EXTRA_BYTES);
    bytes.set(front);
    const view = viewOf(bytes);
    if (front.length < SNAPSHOT_HEADER_BYTES + 8) {
      view.setBigUint64(SNAPSHOT_HEADER_BYTES, BigInt(view.getUint32(32)));
    }
    view.setBigUint64(SNAPSHOT_HEADER_BYTES + 8, BigInt(geometryOf(this.#header).virtualSize));
    return bytes;
  }

  #repair(what: string): void {
    this.#mended++;
    this.#findings.repaired(() => `Repairing ${what}`);
  }

  #drop(what: string): void {
    this.#mended++;
    this.#findings.dropped(() => `Dropping ${what}`);
  }
}
