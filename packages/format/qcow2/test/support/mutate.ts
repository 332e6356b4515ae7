/** Breaking images where it hurts: in their tables, not in their data. */
import { joinU64, viewOf } from "@blocklayer/bytes";
import type { Rng } from "./rng.js";

/** The metadata of an image: where its tables lie. */
interface Places {
  readonly clusterSize: number;
  /** Ranges of 8-byte entries, as [offset, length]. */
  readonly tables: readonly (readonly [number, number])[];
}

const BITMAPS_EXTENSION = 0x2385_2875;

/** Copies an image, breaks the copy in 1 to 4 places, and sometimes cuts its end off. */
export function mutate(image: Uint8Array, rng: Rng, header = false): Uint8Array {
  let bytes = image.slice();
  const places = placesOf(bytes);
  const count = 1 + rng.below(4);
  for (let i = 0; i < count; i++) {
    if (places.tables.length === 0 || (header && rng.below(3) === 0)) mutateHeader(bytes, rng);
    else mutateEntry(bytes, places, rng);
  }
  if (rng.below(12) === 0) bytes = bytes.slice(0, rng.below(bytes.length));
  return bytes;
}

function placesOf(bytes: Uint8Array): Places {
  const view = viewOf(bytes);
  // A header that is broken already may name any size.
  const clusterSize = 2 ** Math.min(21, Math.max(9, view.getUint32(20)));
  const offsetAt = (at: number): number => {
    const value = joinU64(view.getUint32(at) & 0x00ff_ffff, view.getUint32(at + 4) & 0xffff_fe00);
    return value < 0 || value + 8 > bytes.length ? 0 : value;
  };
  const tables: [number, number][] = [];
  const add = (offset: number, length: number): void => {
    const end = Math.min(bytes.length, offset + length);
    if (offset > 0 && end - offset >= 8) tables.push([offset, end - offset]);
  };
  const l1Offset = offsetAt(40);
  const refcountTable = offsetAt(48);
  add(l1Offset, view.getUint32(36) * 8);
  add(refcountTable, Math.min(clusterSize, 64));
  add(offsetAt(refcountTable), clusterSize);
  add(offsetAt(64), view.getUint32(60) * 64);
  for (
    let at = l1Offset;
    at < l1Offset + view.getUint32(36) * 8 && at + 8 <= bytes.length;
    at += 8
  ) {
    add(offsetAt(at), clusterSize);
    if (tables.length > 40) break;
  }
  for (const [offset, length] of bitmapPlaces(view)) add(offset, length);
  return { clusterSize, tables };
}

/** The bitmap directory and the first bitmap's table, of an image whose first extension is that of bitmaps. */
function bitmapPlaces(view: DataView): readonly (readonly [number, number])[] {
  const start = view.getUint32(4) === 2 ? 72 : view.getUint32(100);
  if (start > view.byteLength - 32 || view.getUint32(start) !== BITMAPS_EXTENSION) return [];
  const directory = view.getUint32(start + 28);
  if (directory > view.byteLength - 8) return [];
  return [
    [directory, view.getUint32(start + 20)],
    [view.getUint32(directory + 4), 64],
  ];
}

function mutateEntry(bytes: Uint8Array, { clusterSize, tables }: Places, rng: Rng): void {
  const [offset, length] = rng.pick(tables);
  // Entries at the front are the ones in use.
  const span = rng.below(2) === 0 ? Math.min(length, 128) : length;
  const at = offset + rng.below(Math.max(1, Math.floor(span / 8))) * 8;
  const view = viewOf(bytes);
  switch (rng.below(8)) {
    case 0:
      view.setBigUint64(at, view.getBigUint64(at) ^ (1n << BigInt(rng.below(64))));
      break;
    case 1:
      bytes[at + rng.below(8)] = rng.below(256);
      break;
    case 2: {
      const [other, otherLength] = rng.pick(tables);
      const from = other + rng.below(Math.floor(otherLength / 8)) * 8;
      view.setBigUint64(at, view.getBigUint64(from));
      break;
    }
    case 3: {
      const cluster = rng.below(Math.ceil(bytes.length / clusterSize) + 2);
      const copied = rng.below(2) === 0 ? 1n << 63n : 0n;
      view.setBigUint64(at, BigInt(cluster * clusterSize) | copied);
      break;
    }
    case 4:
      view.setBigUint64(at, 0n);
      break;
    case 5:
      view.setBigUint64(at, view.getBigUint64(at) ^ (1n << 63n));
      break;
    case 6:
      view.setBigUint64(at, (BigInt(rng.bits()) << 32n) | BigInt(rng.bits()));
      break;
    default:
      view.setBigUint64(at, (view.getBigUint64(at) + 512n) & 0xffff_ffff_ffff_ffffn);
  }
}

/** Fields of the header that are worth breaking: offset and length. */
const FIELDS: readonly (readonly [number, number])[] = [
  [8, 8],
  [16, 4],
  [20, 4],
  [24, 8],
  [32, 4],
  [36, 4],
  [40, 8],
  [48, 8],
  [56, 4],
  [60, 4],
  [64, 8],
  [72, 8],
  [80, 8],
  [88, 8],
  [96, 4],
  [100, 4],
  [104, 8],
  [112, 8],
  [120, 8],
];

function mutateHeader(bytes: Uint8Array, rng: Rng): void {
  const [offset, length] = rng.pick(FIELDS);
  const at = offset + rng.below(length);
  if (at >= bytes.length) return;
  const old = bytes[at] as number;
  bytes[at] = rng.below(2) === 0 ? old ^ (1 << rng.below(8)) : rng.below(256);
}
