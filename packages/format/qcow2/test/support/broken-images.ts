/** Images that are broken in one way each, by hand: what is broken, and what becomes of it. */
import { viewOf, writeU64 } from "@blocklayer/bytes";
import { CLUSTER, ImageBuilder } from "./image-builder.js";

export const COPIED = 1n << 63n;

/** One way of being broken. */
export interface BrokenImage {
  readonly name: string;
  readonly bytes: () => Uint8Array;
}

const DATA = 12;

/** A sound image whose data clusters hold their number. */
export function soundImage(more: ConstructorParameters<typeof ImageBuilder>[0] = {}): ImageBuilder {
  const image = new ImageBuilder({ dataClusters: DATA, ...more });
  for (let i = 0; i < DATA; i++) {
    const at = (CLUSTER.data + i) * image.clusterSize;
    image.bytes.fill(i + 1, at, at + image.clusterSize);
  }
  return image;
}

/** The same with a snapshot: the last four data clusters become its table, its L1 table, its L2 table and a spare. */
export function imageWithSnapshot(extraBytes = 16): ImageBuilder {
  const image = soundImage();
  const { clusterSize } = image;
  const first = CLUSTER.data + DATA - 4;
  for (let i = DATA - 4; i < DATA; i++) image.entry(CLUSTER.l2, i, 0n);
  image.bytes.fill(0, first * clusterSize, (first + 4) * clusterSize);
  image.refcount(first + 3, 0);
  image.field("snapshotCount", 1).field("snapshotsOffset", first * clusterSize);
  const entry = new Uint8Array(40 + extraBytes + 3);
  const view = viewOf(entry);
  writeU64(view, 0, (first + 1) * clusterSize);
  view.setUint32(8, 1);
  view.setUint16(12, 1);
  view.setUint16(14, 2);
  view.setUint32(36, extraBytes);
  if (extraBytes >= 16) writeU64(view, 48, clusterSize * (clusterSize / 8));
  entry.set(new TextEncoder().encode("1s1"), 40 + extraBytes);
  image.raw(first * clusterSize, entry);
  image.entry(first + 1, 0, BigInt((first + 2) * clusterSize) | COPIED);
  // Both disks share the first data cluster.
  image.entry(first + 2, 0, BigInt(CLUSTER.data * clusterSize));
  image.entry(CLUSTER.l2, 0, BigInt(CLUSTER.data * clusterSize)).refcount(CLUSTER.data, 2);
  return image;
}

function bigEndian(offset: number): Uint8Array {
  const bytes = new Uint8Array(8);
  writeU64(viewOf(bytes), 0, offset);
  return bytes;
}

const at = (cluster: number, clusterSize = 512): bigint => BigInt(cluster * clusterSize);

export const BROKEN: readonly BrokenImage[] = [
  {
    name: "leaked clusters",
    bytes: () => {
      const image = soundImage();
      image.entry(CLUSTER.l2, 3, 0n).entry(CLUSTER.l2, 7, 0n);
      return image.bytes;
    },
  },
  {
    name: "a refcount that is too high",
    bytes: () => soundImage().refcount(CLUSTER.data + 1, 3).bytes,
  },
  {
    name: "a refcount that is too low, and COPIED flags with it",
    bytes: () => {
      const image = soundImage();
      return image.entry(CLUSTER.l2, 20, image.dataEntry(2)).bytes;
    },
  },
  {
    name: "a COPIED flag that is missing",
    bytes: () => soundImage().entry(CLUSTER.l2, 4, at(CLUSTER.data + 4)).bytes,
  },
  {
    name: "a COPIED flag that is missing in the L1 table",
    bytes: () => soundImage().entry(CLUSTER.l1, 0, at(CLUSTER.l2)).bytes,
  },
  {
    name: "a refcount of 0 for a cluster in use",
    bytes: () => soundImage().refcount(CLUSTER.data + 2, 0).bytes,
  },
  {
    name: "a refcount table without its block",
    bytes: () => soundImage().entry(CLUSTER.refcountTable, 0, 0n).bytes,
  },
  {
    name: "a refcount block that is named twice",
    bytes: () => soundImage().entry(CLUSTER.refcountTable, 1, at(CLUSTER.refcountBlock)).bytes,
  },
  {
    name: "a refcount block behind the end of the file",
    bytes: () => soundImage().entry(CLUSTER.refcountTable, 0, at(1000)).bytes,
  },
  {
    name: "a refcount block that is not aligned",
    bytes: () => soundImage({ clusterBits: 12 }).entry(CLUSTER.refcountTable, 0, 0x2200n).bytes,
  },
  {
    name: "reserved bits in every kind of entry",
    bytes: () => {
      const image = soundImage();
      image.entry(CLUSTER.refcountTable, 0, at(CLUSTER.refcountBlock) | 4n);
      image.entry(CLUSTER.l1, 0, at(CLUSTER.l2) | COPIED | (1n << 58n));
      return image.entry(CLUSTER.l2, 0, image.dataEntry(0) | 0x10n).bytes;
    },
  },
  {
    name: "data behind the end of the file",
    bytes: () => soundImage().entry(CLUSTER.l2, 20, at(5000) | COPIED).bytes,
  },
  {
    name: "an L2 table behind the end of the file",
    bytes: () => soundImage().entry(CLUSTER.l1, 0, at(5000) | COPIED).bytes,
  },
  {
    name: "data and tables that are not aligned",
    bytes: () => {
      const image = soundImage({ clusterBits: 12 });
      image.entry(CLUSTER.l2, 20, 0x5200n | COPIED).entry(CLUSTER.l2, 21, 0x5201n | COPIED);
      return image.bytes;
    },
  },
  {
    name: "data on the L1 table, on an L2 table and on a refcount block",
    bytes: () => {
      const image = soundImage();
      image.entry(CLUSTER.l2, 20, at(CLUSTER.l1) | COPIED);
      image.entry(CLUSTER.l2, 21, at(CLUSTER.l2) | COPIED);
      return image.entry(CLUSTER.l2, 22, at(CLUSTER.refcountBlock) | COPIED).bytes;
    },
  },
  {
    name: "an L1 table on the snapshot table",
    bytes: () => {
      const image = imageWithSnapshot();
      const table = (CLUSTER.data + DATA - 4) * image.clusterSize;
      return image.field("l1TableOffset", table).bytes;
    },
  },
  {
    name: "guest data that a snapshot takes for an L2 table",
    bytes: () => {
      const image = imageWithSnapshot();
      const first = CLUSTER.data + DATA - 4;
      // The L2 table of the snapshot, as its L1 table: its first entry names guest data.
      return image.raw(first * image.clusterSize, bigEndian((first + 2) * image.clusterSize)).bytes;
    },
  },
  {
    name: "one cluster twice, where refcounts have one bit",
    bytes: () => {
      const image = soundImage({ refcountOrder: 0 });
      return image.entry(CLUSTER.l2, 20, image.dataEntry(2)).bytes;
    },
  },
  {
    name: "compressed data with a COPIED flag, and too long for the file",
    bytes: () => {
      const image = soundImage();
      // The shift of a 512-byte cluster's sector count is 61: one bit of it.
      image.entry(CLUSTER.l2, 20, at(CLUSTER.data + 3) | (1n << 62n) | COPIED);
      return image.entry(CLUSTER.l2, 21, at(CLUSTER.data + DATA - 1) | (1n << 62n) | (1n << 61n))
        .bytes;
    },
  },
  {
    name: "a snapshot without the extra data that version 3 requires",
    bytes: () => imageWithSnapshot(0).bytes,
  },
  {
    name: "a snapshot whose L1 table is not aligned",
    bytes: () => {
      const image = imageWithSnapshot();
      const table = (CLUSTER.data + DATA - 4) * image.clusterSize;
      viewOf(image.bytes).setUint32(table + 4, 0x123);
      return image.bytes;
    },
  },
];
