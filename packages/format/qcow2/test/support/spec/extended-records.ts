/** Extended L2 entries: the subcluster bitmap. */
import { bit, bits, writeRefused, type SpecRecord } from "./record.js";
import { AT, COMPRESSED, COPIED, sound, type SpecImage } from "./spec-image.js";

/** A subcluster. */
const PIECE = 512;
const CLUSTER = 16_384;
const ALL = 0xffff_ffffn;
const DATA = BigInt(AT.data * CLUSTER) | COPIED;

/** The disk is one cluster long, so that its pieces are subclusters: guest cluster 0 with this bitmap. */
function withBitmap(bitmap: bigint, descriptor: bigint = DATA): SpecImage {
  const image = sound({ extended: true }).u64(24, CLUSTER);
  for (let i = 1; i < 4; i++) image.l2(i, 0n, 0n).refcount(AT.data + i, 0);
  return image.l2(0, descriptor, bitmap);
}

/** Pieces of guest cluster 0. */
function pieces(text: (subcluster: number) => string): string {
  return bits(0, 31).map(text).join("");
}

const one = (n: number, that: string, others: string): string =>
  pieces((i) => (i === n ? that : others));

const ALLOCATION: readonly SpecRecord[] = [
  ...bits(0, 31).map((n) => ({
    line: `bitmap bit ${n}: subcluster ${n} is allocated`,
    build: () => withBitmap(bit(n)),
    expected: { guest: one(n, "1", ".") },
    row: true,
    pieceBytes: PIECE,
  })),
  ...bits(0, 31).map((n) => ({
    line: `bitmap bit ${32 + n}: subcluster ${n} reads as zeroes`,
    build: () => withBitmap((ALL ^ bit(n)) | bit(32 + n)),
    expected: { guest: one(n, ".", "1") },
    row: true,
    pieceBytes: PIECE,
  })),
  ...bits(0, 31).map((n) => ({
    line: `bitmap bits ${n} and ${32 + n} are not both 1`,
    build: () => withBitmap(ALL | bit(32 + n)),
    expected: {
      guest: one(n, "!", "!"),
      write: writeRefused(
        "the entry is a bitmap with subclusters that are allocated and zero, or allocated nowhere",
        "L2 table",
      ),
      check: { corruptions: 1 },
    },
    row: true,
    pieceBytes: PIECE,
  })),
  ...bits(0, 31).map((n) => ({
    line: `bitmap bit ${n}: an allocated subcluster has an offset`,
    build: () => withBitmap(bit(n), 0n).refcount(AT.data, 0),
    expected: {
      guest: one(n, "!", "!"),
      write: writeRefused(
        "the entry is a bitmap with subclusters that are allocated and zero, or allocated nowhere",
        "L2 table",
      ),
      check: { corruptions: 1 },
    },
    row: true,
    pieceBytes: PIECE,
  })),
  ...bits(32, 63).map((n) => ({
    line: `bitmap bit ${n}: a subcluster of zeroes needs no offset`,
    build: () => withBitmap(bit(n), 0n).refcount(AT.data, 0),
    expected: { guest: ".".repeat(32) },
    row: true,
    pieceBytes: PIECE,
  })),
  {
    line: "a bitmap of 0 with an offset: nothing is allocated",
    build: () => withBitmap(0n),
    expected: { guest: ".".repeat(32) },
    pieceBytes: PIECE,
  },
  {
    line: "a subcluster that is not allocated is read from the backing file, one of zeroes is not",
    build: () =>
      withBitmap(0xfn | (0xf0n << 32n))
        .extension(112, 0xe279_2aca, "raw")
        .backing(200, "base.raw"),
    expected: { guest: `1111....${"6".repeat(24)}` },
    pieceBytes: PIECE,
    backing: () => new Uint8Array(CLUSTER).fill(6),
  },
];

const DESCRIPTORS: readonly SpecRecord[] = [
  {
    line: "extended entry: bit 0 of the descriptor is always 0",
    build: () => withBitmap(ALL, DATA | 1n),
    expected: { guest: "1".repeat(32) },
    pieceBytes: PIECE,
  },
  {
    line: "extended entry: bit 0 of the descriptor is always 0, also without a cluster",
    build: () => withBitmap(0n, 1n).refcount(AT.data, 0),
    expected: { guest: ".".repeat(32) },
    pieceBytes: PIECE,
  },
  ...[...bits(1, 8), ...bits(56, 61)].map((n) => ({
    line: `extended entry: bit ${n} of the descriptor is reserved`,
    build: () => withBitmap(ALL, DATA | bit(n)),
    expected: { guest: "1".repeat(32), check: { corruptions: 1 } },
    row: true,
    pieceBytes: PIECE,
  })),
  ...bits(9, 13).map((n) => ({
    line: `extended entry: the cluster begins at a cluster: bit ${n}`,
    build: () => withBitmap(ALL, DATA ^ bit(n)),
    expected: {
      guest: "!".repeat(32),
      write: writeRefused("the entry is", "L2 table"),
      check: { corruptions: 2 },
      leftByLeaks: { checkErrors: 1 },
    },
    pieceBytes: PIECE,
  })),
  {
    line: "extended entries are 16 bytes long: a table of 2^14 bytes has 1024",
    build: () => sound({ extended: true }).u64(24, 1025 * CLUSTER),
    expected: {
      read: { code: "ECORRUPT", rule: "L1 table is too small" },
      write: { code: "ECORRUPT", rule: "L1 table is too small" },
    },
  },
  {
    line: "extended entries are 16 bytes long: the last one of a table",
    build: () =>
      sound({ extended: true })
        .u64(24, 1024 * CLUSTER)
        .l2(1023, 0n, bit(32)),
    expected: { guest: `1234${".".repeat(1020)}` },
  },
];

/** Sound but for the bitmap of a compressed cluster: data at the free cluster, which is no stream. */
function compressedWith(bitmap: bigint): SpecImage {
  const image = withBitmap(0n, 0n).refcount(AT.data, 0).refcount(AT.free, 1);
  // A deflate stream: one stored block that is the last, 512 bytes, then it ends too early.
  const descriptor = COMPRESSED | BigInt(AT.free * CLUSTER);
  return image.l2(0, descriptor, bitmap);
}

const COMPRESSED_BITMAPS: readonly SpecRecord[] = bits(0, 63).map((n) => ({
  line: `bitmap of a compressed cluster: bit ${n} is reserved`,
  build: () => compressedWith(bit(n)),
  expected: { guest: "!".repeat(32), check: { corruptions: 1, leaks: 1 } },
  row: true,
  pieceBytes: PIECE,
}));

export const EXTENDED_RECORDS: readonly SpecRecord[] = [
  ...ALLOCATION,
  ...DESCRIPTORS,
  ...COMPRESSED_BITMAPS,
];
