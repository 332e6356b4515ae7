/** The header extensions, but for what bitmaps and data files make of theirs. */
import { bit, bits, refused, type Expected, type SpecRecord } from "./record.js";
import { sound, type SpecImage } from "./spec-image.js";

const END = 0;
const FORMAT = 0xe279_2aca;
const NAMES = 0x6803_f857;
const ENCRYPTION = 0x0537_be77;
const UNKNOWN = 0x1234_5678;

const TOO_LARGE: Expected = refused("ECORRUPT", "Header extension too large", "header extension");
const NO_LUKS: Expected = refused("ECORRUPT", "only expected with LUKS");

/** A row of the feature name table. */
function row(set: number, number: number, name: string): Uint8Array {
  const bytes = new Uint8Array(48);
  bytes.set([set, number, ...new TextEncoder().encode(name)]);
  return bytes;
}

/** An image with an encryption header's place. */
function luks(lengthBytes: number, offset: number): SpecImage {
  return sound()
    .u32(32, 2)
    .extension(112, ENCRYPTION, new Uint8Array(lengthBytes))
    .u64(120, offset);
}

const AREA: readonly SpecRecord[] = [
  {
    line: "type 0 ends the area: what follows is not looked at",
    build: () => sound().extension(120, FORMAT, "x".repeat(100)),
    expected: {},
  },
  {
    line: "type 0 may have a length",
    build: () => sound().extension(112, END, "12345678"),
    expected: {},
  },
  {
    line: "type 0: its length fits the area",
    build: () => sound().extension(112, END, "", 3977),
    expected: TOO_LARGE,
  },
  {
    line: "an extension may fill the area, to its last byte",
    build: () => sound().extension(112, UNKNOWN, new Uint8Array(3976).fill(7)),
    expected: {},
  },
  {
    line: "an extension ends within the first cluster",
    build: () => sound().extension(112, UNKNOWN, "", 3977),
    expected: TOO_LARGE,
  },
  ...bits(12, 31).map((n) => ({
    line: `an extension ends within the first cluster: bit ${n} of its length`,
    build: () => sound().extension(112, UNKNOWN, "", 2 ** n),
    expected: TOO_LARGE,
    row: true,
  })),
  {
    line: "an extension ends before the backing file's name",
    build: () => sound().extension(112, UNKNOWN, "", 89).backing(208, "base.raw"),
    expected: TOO_LARGE,
  },
  {
    line: "type and length have room in the area",
    build: () => sound().u32(100, 4092),
    expected: TOO_LARGE,
  },
  ...bits(0, 17).map((length) => ({
    line: `an extension is padded to a multiple of 8: ${length} bytes`,
    build: () =>
      sound()
        .extension(112, UNKNOWN, new Uint8Array(length).fill(0x61))
        .extension(120 + Math.ceil(length / 8) * 8, FORMAT, "raw"),
    expected: {},
  })),
  {
    line: "padding may be anything",
    build: () => sound().extension(112, FORMAT, "rawjunk!", 3),
    expected: {},
  },
  ...[1, 0x4441_5442, 0x7fff_ffff, 0xffff_ffff].map((type) => ({
    line: `an unknown type is ignored: ${type.toString(16)}`,
    build: () => sound().extension(112, type, "what nobody knows"),
    expected: {},
  })),
  {
    line: "an unknown type may be there twice",
    build: () => sound().extension(112, UNKNOWN, "12345678").extension(128, UNKNOWN, "abcdefgh"),
    expected: {},
  },
  {
    line: "extensions of version 2 begin at byte 72",
    build: () =>
      sound({ version: 2 }).extension(72, UNKNOWN, "12345678").extension(88, FORMAT, "raw"),
    expected: {},
  },
];

const STRINGS: readonly SpecRecord[] = [
  ...bits(0, 15).map((length) => ({
    line: `the backing format's name has any length up to 15: ${length}`,
    build: () => sound().extension(112, FORMAT, "x".repeat(length)),
    expected: {},
  })),
  ...[16, 17, 255, 3976].map((length) => ({
    line: `the backing format's name is no longer than QEMU takes: ${length}`,
    build: () => sound().extension(112, FORMAT, "x".repeat(length)),
    expected: refused("ECORRUPT", "backing format name", "header extension"),
  })),
  {
    line: "the backing format is there once: the last one counts",
    build: () =>
      sound()
        .extension(112, FORMAT, "bogus")
        .extension(128, FORMAT, "raw")
        .backing(200, "base.raw"),
    expected: { guest: "1234666666666666" },
    backing: () => new Uint8Array(65_536).fill(6),
  },
];

const FEATURE_NAMES: readonly SpecRecord[] = [
  {
    line: "a feature's name is told when it is unknown",
    build: () =>
      sound()
        .u64(72, bit(40))
        .extension(112, NAMES, row(0, 40, "time travel")),
    expected: refused("ENOTSUP", "Unsupported qcow2 feature(s): time travel"),
  },
  {
    line: "a feature's name may have 46 bytes without a closing zero",
    build: () =>
      sound()
        .u64(72, bit(63))
        .extension(112, NAMES, row(0, 63, "x".repeat(46))),
    expected: refused("ENOTSUP", `feature(s): ${"x".repeat(46)}`),
  },
  {
    line: "a name of another set is not that of an incompatible feature",
    build: () =>
      sound()
        .u64(72, bit(40))
        .extension(112, NAMES, row(1, 40, "time travel")),
    expected: refused("ENOTSUP", "Unknown incompatible feature: 10000000000"),
  },
  {
    line: "a set that is none, and a bit that is none, are ignored",
    build: () =>
      sound()
        .extension(112, NAMES, row(3, 1, "x"))
        .extension(168, NAMES, row(0, 64, "y")),
    expected: {},
  },
  ...[0, 1, 47, 49, 95].map((length) => ({
    line: `the table has whole rows: ${length} bytes`,
    build: () => sound().extension(112, NAMES, new Uint8Array(length)),
    expected: {},
  })),
];

const ENCRYPTION_HEADER: readonly SpecRecord[] = [
  {
    line: "the encryption header's place is there only with LUKS: not with method 0",
    build: () => luks(16, 9 * 4096).u32(32, 0),
    expected: NO_LUKS,
  },
  {
    line: "the encryption header's place is there only with LUKS: not with method 1",
    build: () => luks(16, 9 * 4096).u32(32, 1),
    expected: NO_LUKS,
  },
  {
    line: "the encryption header's place is there with LUKS",
    build: () => sound().u32(32, 2),
    expected: refused("ENOTSUP", "LUKS"),
  },
  ...[0, 8, 15, 17, 24].map((length) => ({
    line: `the encryption header's place has 16 bytes: ${length}`,
    build: () => luks(length, length < 8 ? 0 : 9 * 4096),
    expected: refused("ENOTSUP", "LUKS"),
  })),
  ...bits(0, 11).map((n) => ({
    line: `the encryption header begins at a cluster: bit ${n}`,
    build: () => luks(16, 9 * 4096 + 2 ** n),
    expected: refused("ENOTSUP", "LUKS"),
    row: true,
  })),
];

export const EXTENSION_RECORDS: readonly SpecRecord[] = [
  ...AREA,
  ...STRINGS,
  ...FEATURE_NAMES,
  ...ENCRYPTION_HEADER,
];
