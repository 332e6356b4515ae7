/** The feature bits, bytes 72 to 95, and the compression type, byte 104. */
import {
  badHeader,
  bit,
  bits,
  refused,
  SOUND_GUEST,
  type Refusal,
  type SpecRecord,
  withDifferences,
  type Difference,
} from "./record.js";
import { sound } from "./spec-image.js";

const CORRUPT: Refusal = { code: "EACCES", rule: "Image is corrupt" };

const INCOMPATIBLE: readonly SpecRecord[] = [
  {
    line: "incompatible bit 0, dirty: refcounts are repaired before a write",
    build: () => sound().u64(72, bit(0)),
    expected: {},
  },
  {
    line: "incompatible bit 0, dirty: refcounts that are wrong are mended",
    build: () => sound().u64(72, bit(0)).refcount(5, 0).refcount(9, 1),
    expected: { check: { corruptions: 2, leaks: 1 }, leftByLeaks: { leaks: 1, checkErrors: 1 } },
  },
  {
    line: "incompatible bit 1, corrupt: not written to but for a repair",
    build: () => sound().u64(72, bit(1)),
    expected: { write: CORRUPT },
  },
  {
    line: "incompatible bits 0 and 1: corrupt counts",
    build: () => sound().u64(72, 3),
    expected: { write: CORRUPT },
  },
  {
    line: "incompatible bit 2, external data file: one must be named, or given",
    build: () => sound().u64(72, bit(2)),
    // What the image itself has of data is not counted then.
    expected: { ...refused("EINVAL", "'data-file' is required"), check: { leaks: 4 } },
  },
  {
    line: "incompatible bit 3, compression type: the field is not 0",
    build: () => sound().u64(72, bit(3)),
    expected: badHeader("bit must not be set"),
  },
  {
    line: "incompatible bit 3, compression type: the field is there",
    build: () => sound().u64(72, bit(3)).u8(104, 1).u32(100, 104),
    expected: badHeader("bit must not be set"),
  },
  {
    line: "incompatible bit 3, compression type: 1 is zstd",
    build: () => sound().u64(72, bit(3)).u8(104, 1),
    expected: {},
  },
  ...bits(2, 255).map((type) => ({
    line: `compression_type is 0 or 1: ${type}`,
    build: () => sound().u64(72, bit(3)).u8(104, type),
    expected: refused("ENOTSUP", "unknown compression type"),
    row: true,
  })),
  {
    line: "compression_type is 0 without its bit",
    build: () => sound().u8(104, 1),
    expected: badHeader("bit must be set"),
  },
  {
    line: "compression_type is not there in a header of 104 bytes",
    build: () => sound().u32(100, 104).u8(104, 1).u8(111, 4),
    expected: {},
  },
  {
    line: "compression_type is not there in version 2",
    build: () => sound({ version: 2 }).u8(104, 1),
    expected: {},
  },
  ...bits(9, 13).map((clusterBits) => ({
    line: `incompatible bit 4, extended L2 entries: clusters have 16 KiB at least, not 2^${clusterBits}`,
    build: () => sound({ clusterBits }).u64(72, bit(4)),
    expected: badHeader("Unsupported subcluster size"),
  })),
  {
    line: "incompatible bit 4, extended L2 entries: sound",
    build: () => sound({ extended: true }),
    expected: {},
  },
  ...bits(5, 63).map((n) => ({
    line: `incompatible bit ${n} is reserved: not to be opened`,
    build: () => sound().u64(72, bit(n)),
    expected: refused("ENOTSUP", `Unknown incompatible feature: ${bit(n).toString(16)}`),
    row: true,
  })),
  {
    line: "incompatible bits are no field of version 2",
    build: () => sound({ version: 2 }).u64(72, 0n),
    expected: {},
  },
];

const COMPATIBLE: readonly SpecRecord[] = [
  {
    line: "compatible bit 0: lazy refcounts may be used",
    build: () => sound().u64(80, bit(0)),
    expected: {},
  },
  ...bits(1, 63).map((n) => ({
    line: `compatible bit ${n} is reserved: to be ignored`,
    build: () => sound().u64(80, bit(n)),
    expected: {},
    row: true,
  })),
];

const AUTOCLEAR: readonly SpecRecord[] = [
  {
    line: "autoclear bit 0 without the bitmaps extension",
    build: () => sound().u64(88, bit(0)),
    expected: {},
  },
  {
    line: "autoclear bit 1 without an external data file",
    build: () => sound().u64(88, bit(1)),
    expected: {
      read: {
        code: "ECORRUPT",
        rule: "the data file is said to be raw, and there is none",
        structure: "header",
      },
      write: {
        code: "ECORRUPT",
        rule: "the data file is said to be raw, and there is none",
        structure: "header",
      },
    },
  },
  ...bits(2, 63).map((n) => ({
    line: `autoclear bit ${n} is reserved: cleared by who writes`,
    build: () => sound().u64(88, bit(n)),
    expected: { guest: SOUND_GUEST },
    row: true,
  })),
];

const DIFFERENCES: readonly Difference[] = [
  {
    lines: /^incompatible bit 2,/,
    differs: {
      info: "QEMU's info opens no data file",
      check: "this check reads the image alone",
      repaired: "this repair reads the image alone",
    },
  },
  {
    lines: /^autoclear bit 0 without/,
    differs: { write: "QEMU takes offset 0 for that of a directory, and the header for its place" },
  },
  { lines: /^autoclear bit 1 without/, differs: { info: "QEMU's info opens no data file" } },
];

export const FEATURE_RECORDS: readonly SpecRecord[] = withDifferences(
  [...INCOMPATIBLE, ...COMPATIBLE, ...AUTOCLEAR],
  DIFFERENCES,
);
