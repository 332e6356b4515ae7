/** The fixed fields of the header, bytes 0 to 71, and those of version 3 up to byte 104. */
import {
  badHeader,
  bit,
  bits,
  refused,
  writeRefused,
  type Expected,
  type SpecRecord,
  withDifferences,
  type Difference,
} from "./record.js";
import { AT, COPIED, sound } from "./spec-image.js";

const BEYOND = refused("ECORRUPT", "2^53");

/** A field of the header that must be a multiple of the cluster size: each bit below it. */
function unaligned(field: string, at: number, name: string): SpecRecord[] {
  return bits(0, 11).map((n) => ({
    line: `${field} is a multiple of the cluster size: bit ${n}`,
    build: () => sound().flip(at, bit(n)),
    expected: badHeader(`${name} offset invalid`),
    row: true,
  }));
}

/** A field of the header whose values beyond 2^53 are refused. */
function beyond(field: string, at: number): SpecRecord[] {
  return bits(53, 63).map((n) => ({
    line: `${field} is 64 bits wide: bit ${n}`,
    build: () => sound().flip(at, bit(n)),
    expected: BEYOND,
    row: true,
  }));
}

const backing = (): Uint8Array => new Uint8Array(65_536).fill(6);
const BACKED: Expected = { guest: "1234666666666666" };

const IDENTITY: readonly SpecRecord[] = [
  { line: "the plain image of version 3 is sound", build: () => sound(), expected: {} },
  {
    line: "the plain image of version 2 is sound",
    build: () => sound({ version: 2 }),
    expected: {},
  },
  ...bits(0, 3).map((at) => ({
    line: `magic is QFI and 0xfb: byte ${at}`,
    build: () => sound().u8(at, 0x55),
    expected: badHeader("not in qcow2 format"),
  })),
  ...[0, 1, 4, 5, 0x300, 0x0300_0000, 0xffff_ffff].map((version) => ({
    line: `version is 2 or 3: ${version}`,
    build: () => sound().u32(4, version),
    expected: refused("ENOTSUP", "Unsupported qcow2 version"),
  })),
];

const BACKING: readonly SpecRecord[] = [
  {
    line: "backing_file_offset 0: no backing file, whatever backing_file_size says",
    build: () => sound().u32(16, 0xffff_ffff),
    expected: {},
  },
  {
    line: "backing_file_offset names where the name is stored",
    build: () => sound().extension(112, 0xe279_2aca, "raw").backing(200, "base.raw"),
    expected: BACKED,
    backing,
  },
  {
    line: "backing_file_offset in version 2",
    build: () => sound({ version: 2 }).extension(72, 0xe279_2aca, "raw").backing(96, "base.raw"),
    expected: BACKED,
    backing,
  },
  {
    line: "the backing file's name has no closing zero: it may be followed by anything",
    build: () =>
      sound().extension(112, 0xe279_2aca, "raw").text(208, "junk").backing(200, "base.raw"),
    expected: BACKED,
    backing,
  },
  {
    line: "backing_file_size may end at the end of the cluster",
    build: () => sound().extension(112, 0xe279_2aca, "raw").backing(4088, "base.raw"),
    expected: BACKED,
    backing,
  },
  {
    line: "backing_file_size: 1023 bytes are allowed",
    build: () =>
      sound()
        .extension(112, 0xe279_2aca, "raw")
        .backing(200, `${"./".repeat(507)}/base.raw`),
    expected: BACKED,
    backing,
  },
  {
    line: "backing_file_size: 1024 bytes are not allowed",
    build: () =>
      sound()
        .extension(112, 0xe279_2aca, "raw")
        .backing(200, `${"./".repeat(508)}base.raw`),
    expected: badHeader("Backing file name too long"),
    backing,
  },
  {
    line: "backing_file_size: the name lies in the first cluster",
    build: () => sound().u64(8, 4090).u32(16, 7),
    expected: badHeader("Backing file name too long"),
  },
  {
    line: "backing_file_size may be 0: no backing file",
    build: () => sound().u64(8, 200).u32(16, 0),
    expected: {},
  },
  {
    line: "backing_file_offset lies in the first cluster",
    build: () => sound().u64(8, 4097).u32(16, 1),
    expected: badHeader("Invalid backing file offset"),
  },
  ...bits(13, 52).map((n) => ({
    line: `backing_file_offset lies in the first cluster: bit ${n}`,
    build: () => sound().u64(8, bit(n)).u32(16, 1),
    expected: badHeader("Invalid backing file offset"),
    row: true,
  })),
  ...beyond("backing_file_offset", 8),
];

const SIZES: readonly SpecRecord[] = [
  ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 22, 23, 31, 32, 33, 63, 64, 0xffff_ffff].map((value) => ({
    line: `cluster_bits is 9 to 21: ${value}`,
    build: () => sound().u32(20, value),
    expected: badHeader("Unsupported cluster size"),
  })),
  ...[9, 10, 11, 13, 14, 15, 16].map((clusterBits) => ({
    line: `cluster_bits may be ${clusterBits}`,
    build: () => sound({ clusterBits }),
    expected: {},
  })),
  {
    line: "cluster_bits may be 21",
    build: () => sound({ clusterBits: 21, freeClusters: 2 }),
    expected: {},
  },
  {
    line: "cluster_bits may be 9 in version 2",
    build: () => sound({ clusterBits: 9, version: 2 }),
    expected: {},
  },
  { line: "size may be 0", build: () => sound().u64(24, 0), expected: { guest: "" } },
  {
    line: "size may be 0, and then l1_size may be",
    build: () => sound().u64(24, 0).u32(36, 0),
    expected: { guest: "", check: { leaks: 6 } },
  },
  {
    line: "size may be no multiple of a sector: the last part of one is left off",
    build: () => sound().u64(24, 4 * 4096 + 1000),
    expected: { guest: "1234." },
  },
  {
    line: "size is covered by the L1 table: one byte less",
    build: () => sound().u64(24, 2 ** 21 - 512),
    expected: { guest: `1234${".".repeat(508)}` },
  },
  {
    line: "size is covered by the L1 table: one sector more",
    build: () => sound().u64(24, 2 ** 21 + 512),
    expected: badHeader("L1 table is too small"),
  },
  ...bits(22, 52).map((n) => ({
    line: `size is covered by the L1 table: bit ${n}`,
    build: () => sound().u64(24, bit(n)),
    expected: badHeader("L1 table is too small"),
    row: true,
  })),
  ...beyond("size", 24),
];

const CRYPT: readonly SpecRecord[] = [
  {
    line: "crypt_method 1 is AES",
    build: () => sound().u32(32, 1),
    expected: refused("ENOTSUP", "AES encryption"),
  },
  {
    line: "crypt_method 2 is LUKS, with its header's place",
    build: () =>
      sound()
        .u32(32, 2)
        .u32(112, 0x0537_be77)
        .u32(116, 16)
        .u64(120, 9 * 4096)
        .u64(128, 4096),
    expected: refused("ENOTSUP", "LUKS encryption"),
  },
  ...[3, 4, 0x100, 0x0100_0000, 0xffff_ffff].map((method) => ({
    line: `crypt_method is 0, 1 or 2: ${method}`,
    build: () => sound().u32(32, method),
    expected: badHeader("Unsupported encryption method"),
  })),
];

const TABLES: readonly SpecRecord[] = [
  {
    line: "l1_size may be more than the disk needs",
    build: () => sound().u32(36, 512),
    expected: {},
  },
  {
    line: "l1_size is what the disk needs at least",
    build: () => sound().u32(36, 0),
    expected: badHeader("L1 table is too small"),
  },
  {
    line: "l1_size: QEMU takes 32 MiB of entries",
    build: () => sound().u32(36, 2 ** 22 + 1),
    expected: badHeader("Active L1 table too large"),
  },
  {
    line: "l1_size: QEMU takes 32 MiB of entries, and no more for any bit",
    build: () => sound().u32(36, 0x8000_0001),
    expected: badHeader("Active L1 table too large"),
  },
  ...unaligned("l1_table_offset", 40, "Active L1 table"),
  ...beyond("l1_table_offset", 40),
  {
    line: "l1_table_offset behind the end of the file: a table of zeroes",
    build: () => sound().u64(40, 2 ** 30),
    expected: { guest: "................", check: { corruptions: 1, leaks: 6 } },
  },
  {
    line: "l1_table_offset 0: the header is no L1 table",
    build: () => sound().u64(40, 0),
    expected: {
      write: writeRefused("not the offset of a cluster", "L1 table"),
      guest: "!!!!!!!!!!!!!!!!",
      check: { corruptions: 3, leaks: 6 },
    },
  },
  ...unaligned("refcount_table_offset", 48, "Reference count table"),
  ...beyond("refcount_table_offset", 48),
  {
    line: "refcount_table_offset behind the end of the file: all refcounts are 0",
    build: () => sound().u64(48, 2 ** 30),
    expected: {
      write: writeRefused(
        "refcount block: the refcount of cluster 0, which holds the header, is 0",
        "refcount block",
      ),
      check: { corruptions: 13 },
      leftByLeaks: { checkErrors: 1 },
    },
  },
  {
    line: "refcount_table_clusters is at least 1",
    build: () => sound().u32(56, 0),
    expected: badHeader("does not contain a reference count table"),
  },
  {
    line: "refcount_table_clusters: QEMU takes 8 MiB",
    build: () => sound().u32(56, 2049),
    expected: badHeader("Reference count table too large"),
  },
  {
    line: "refcount_table_clusters: QEMU takes 8 MiB, and no more for any bit",
    build: () => sound().u32(56, 0x8000_0001),
    expected: badHeader("Reference count table too large"),
  },
  {
    line: "refcount_table_clusters: two of them",
    build: () => {
      const image = sound()
        .u64(48, 9 * 4096)
        .u32(56, 2)
        .refcount(1, 0);
      return image.entry(9, 0, 8192n).refcount(9, 1).refcount(10, 1);
    },
    expected: {},
  },
  {
    line: "nb_snapshots: QEMU takes 65536",
    build: () => sound().u32(60, 65_537),
    expected: badHeader("Snapshot table too large"),
  },
  {
    line: "nb_snapshots: QEMU takes 65536, and no more for any bit",
    build: () => sound().u32(60, 0x8000_0001),
    expected: badHeader("Snapshot table too large"),
  },
  ...unaligned("snapshots_offset", 64, "Snapshot table"),
  ...beyond("snapshots_offset", 64),
  {
    line: "snapshots_offset means nothing without snapshots",
    build: () => sound().u64(64, 9 * 4096),
    expected: {},
  },
];

const VERSION_3: readonly SpecRecord[] = [
  ...bits(0, 6).map((refcountOrder) => ({
    line: `refcount_order may be ${refcountOrder}`,
    build: () => sound({ refcountOrder }),
    expected: {},
  })),
  ...[7, 8, 16, 31, 32, 63, 64, 0x8000_0004, 0xffff_ffff].map((order) => ({
    line: `refcount_order is at most 6: ${order}`,
    build: () => sound().u32(96, order),
    expected: badHeader("may not exceed 64 bits"),
  })),
  {
    line: "refcount_order is 4 in version 2, whatever lies there",
    build: () => sound({ version: 2 }).u32(96, 7),
    expected: {},
  },
  ...[0, 71, 72, 96, 103].map((length) => ({
    line: `header_length is 104 at least: ${length}`,
    build: () => sound().u32(100, length),
    expected: badHeader("qcow2 header too short"),
  })),
  ...[104, 112, 120, 4096].map((length) => ({
    line: `header_length may be ${length}`,
    build: () => sound().u32(100, length),
    expected: {},
  })),
  ...bits(105, 111).map((length) => ({
    line: `header_length is a multiple of 8: ${length}`,
    build: () => sound().u32(100, length),
    expected: {},
  })),
  ...[4097, 0x8000_0070, 0xffff_ffff].map((length) => ({
    line: `header_length is a cluster at most: ${length}`,
    build: () => sound().u32(100, length),
    expected: badHeader("qcow2 header exceeds cluster size"),
  })),
  {
    line: "header_length is 72 in version 2, whatever lies there",
    build: () => sound({ version: 2 }).u32(100, 1),
    expected: {},
  },
  {
    line: "fields behind byte 104 that are unknown are ignored",
    build: () => sound().u32(100, 128).raw(112, new Uint8Array(16).fill(0xee)),
    expected: {},
  },
  ...bits(105, 111).map((at) => ({
    line: `the padding behind compression_type is zero: byte ${at}`,
    build: () => sound().u8(at, 0xff),
    expected: {},
  })),
];

/** An L1 table that is one of the tables would name itself. */
const SELF: readonly SpecRecord[] = [
  {
    line: "an L1 table lies on no other table",
    build: () => sound().u64(40, 4096),
    expected: {
      write: writeRefused("a write of 4096 bytes to 0x2000 would overwrite it", "active L2 table"),
      guest: "................",
      check: { corruptions: 7, leaks: 6 },
      leftByLeaks: { leaks: 6, checkErrors: 1 },
    },
  },
  {
    line: "a refcount table lies on no other table",
    build: () =>
      sound()
        .u64(48, 3 * 4096)
        .entry(AT.l1, 0, (4n * 4096n) | COPIED),
    expected: {
      write: writeRefused("not the offset of a cluster", "refcount table"),
      check: { corruptions: 1, checkErrors: 16 },
      leftByLeaks: { checkErrors: 17 },
    },
  },
];

const BEYOND_LIMIT = "sizes and offsets of this driver end at 2^53 - 1";

const DIFFERENCES: readonly Difference[] = [
  { lines: /^crypt_method 1 /, differs: { info: "QEMU's info asks for no key, and shows it" } },
  {
    lines: /^(l1|refcount)_table_offset is 64 bits wide: bit (5[3-9]|6[0-2])$/,
    differs: { read: BEYOND_LIMIT, info: BEYOND_LIMIT, check: BEYOND_LIMIT },
  },
  {
    lines: /^snapshots_offset is 64 bits wide: bit (5[3-9]|6[0-2])$/,
    differs: { read: BEYOND_LIMIT, info: BEYOND_LIMIT, write: BEYOND_LIMIT, check: BEYOND_LIMIT },
  },
  { lines: /^l1_table_offset 0:/, differs: { guest: BEYOND_LIMIT } },
  {
    lines: /^refcount_table_clusters is at least 1$/,
    differs: { check: "QEMU checks an image that it does not open" },
  },
];

export const HEADER_RECORDS: readonly SpecRecord[] = withDifferences(
  [...IDENTITY, ...BACKING, ...SIZES, ...CRYPT, ...TABLES, ...VERSION_3, ...SELF],
  DIFFERENCES,
);
