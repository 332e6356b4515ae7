/** What this driver does with an image of a record. */
import { directChild } from "@blocklayer/block-api";
import { BlockError, CorruptImageError, IoVector } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../../../src/index.js";
import { repairQcow2 } from "../../../src/repair/repair.js";
import { childOf } from "../images.js";
import { GUEST_CLUSTERS } from "./spec-image.js";
import type { Counts, Refusal, SpecRecord } from "./record.js";

/** Longer disks are not read whole. */
const MAX_GUEST_BYTES: number = 40 * 2 ** 20;
/** A file grows as far as its tables say. */
const MAX_FILE_BYTES: number = 64 * 2 ** 20;
/** Written to the first and to the last cluster. */
export const WRITTEN = { first: 9, last: 8 } as const;

/** An image's own bytes, open, with the files beside it. */
export interface OpenedRecord {
  readonly memory: MemoryDriver;
  readonly disk: Qcow2Driver;
}

/** Opens an image of a record. */
export async function openRecord(
  record: SpecRecord,
  bytes: Uint8Array,
  readOnly: boolean,
): Promise<OpenedRecord> {
  const memory = openMemory({ bytes });
  const disk = await openQcow2({
    file: directChild(memory),
    readOnly,
    ...(record.backing === undefined ? {} : { backing: childOf(record.backing()) }),
    ...(record.dataFile === undefined ? {} : { dataFile: childOf(record.dataFile()) }),
  });
  return { memory, disk };
}

/** Lets only a BlockError pass as an answer. */
export async function refusalOf(step: () => unknown, when?: "write"): Promise<Refusal | undefined> {
  try {
    await step();
    return undefined;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return {
      code: error.code,
      rule: error.message,
      ...(error instanceof CorruptImageError ? { structure: error.structure } : {}),
      ...(when === undefined ? {} : { when }),
    };
  }
}

/** A piece as a character: see `Expected.guest`. */
export function pieceText(piece: Uint8Array): string {
  const first = piece[0] ?? 0;
  if (piece.some((byte) => byte !== first)) return "?";
  if (first === 0) return ".";
  return first < 10 ? String(first) : "?";
}

/** What a reader sees; undefined for a disk that is too long to read. */
export async function guestOf(disk: Qcow2Driver, pieceBytes: number): Promise<string | undefined> {
  if (disk.lengthBytes > MAX_GUEST_BYTES) return undefined;
  let guest = "";
  for (let at = 0; at < disk.lengthBytes; at += pieceBytes) {
    const piece = new Uint8Array(Math.min(pieceBytes, disk.lengthBytes - at));
    const refusal = await refusalOf(() => disk.readv(at, IoVector.of(piece)));
    guest += refusal === undefined ? pieceText(piece) : "!";
  }
  return guest;
}

/** What writing came to. */
export interface Written {
  readonly refusal: Refusal | undefined;
  /** Absent: the file has become too long to be looked at. */
  readonly bytes: Uint8Array | undefined;
}

/** Opens the image for writing and writes its first and its last cluster. */
export async function writeEnds(record: SpecRecord, bytes: Uint8Array): Promise<Written> {
  let opened: OpenedRecord | undefined;
  const atOpen = await refusalOf(async () => {
    opened = await openRecord(record, bytes, false);
  });
  if (opened === undefined) return { refusal: atOpen, bytes };
  const { disk, memory } = opened;
  const clusterSize = clusterSizeOf(bytes);
  const last = (GUEST_CLUSTERS - 1) * clusterSize;
  const refusal = await refusalOf(async () => {
    const write = (at: number, value: number): unknown =>
      disk.writev(at, IoVector.of(new Uint8Array(clusterSize).fill(value)));
    if (disk.lengthBytes >= clusterSize) await write(0, WRITTEN.first);
    if (disk.lengthBytes >= last + clusterSize) await write(last, WRITTEN.last);
    await disk.flushToOs();
  }, "write");
  await refusalOf(() => disk.close());
  return { refusal, bytes: memory.lengthBytes > MAX_FILE_BYTES ? undefined : memory.bytes.slice() };
}

/** The cluster size that a header claims. */
export function clusterSizeOf(bytes: Uint8Array): number {
  return 2 ** new DataView(bytes.buffer, bytes.byteOffset).getUint32(20);
}

/** What a check counts; undefined when the header is refused. */
export async function countsOf(bytes: Uint8Array): Promise<Counts | Refusal> {
  const file = childOf(bytes);
  let counts: Counts | undefined;
  const refusal = await refusalOf(async () => {
    const { corruptions, leaks, checkErrors } = await checkQcow2(file, await readHeader(file));
    counts = { corruptions, leaks, checkErrors };
  });
  return counts ?? (refusal as Refusal);
}

/** Repairs a copy. */
export async function repaired(
  bytes: Uint8Array,
  fix: "leaks" | "all",
): Promise<{ readonly counts: Counts | Refusal; readonly bytes: Uint8Array }> {
  const memory = openMemory({ bytes });
  const file = directChild(memory);
  let counts: Counts | undefined;
  const refusal = await refusalOf(async () => {
    const { result } = await repairQcow2(file, await readHeader(file), { fix });
    const { corruptions, leaks, checkErrors } = result;
    counts = { corruptions, leaks, checkErrors };
  });
  return { counts: counts ?? (refusal as Refusal), bytes: memory.bytes.slice() };
}
