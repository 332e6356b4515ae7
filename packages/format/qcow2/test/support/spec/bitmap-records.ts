/** The bitmaps extension, the bitmap directory, bitmap tables and their data. */
import {
  bit,
  bits,
  refused,
  within,
  writeRefused,
  type SpecRecord,
  withDifferences,
  type Difference,
} from "./record.js";
import { sound, type SpecImage } from "./spec-image.js";

const EXTENSION = 0x2385_2875;
/** Clusters of the bitmap. */
const PLACE = { directory: 9, table: 10, data: 11 } as const;
const DIRECTORY = PLACE.directory * 4096;
/** Data of the extension. */
const FIELDS = 120;

interface EntryOptions {
  readonly name?: string;
  readonly extraBytes?: number;
  readonly table?: number;
  readonly flags?: number;
  readonly granularityBits?: number;
}

/** Writes an entry of the directory. @returns its length, padded */
function entry(image: SpecImage, at: number, options: EntryOptions = {}): number {
  const { name = "one", extraBytes = 0, table = PLACE.table } = options;
  const { flags = 0, granularityBits = 9 } = options;
  image
    .u64(at, table * 4096)
    .u32(at + 8, 1)
    .u32(at + 12, flags)
    .u8(at + 16, 1);
  image
    .u8(at + 17, granularityBits)
    .u16(at + 18, name.length)
    .u32(at + 20, extraBytes);
  image.text(at + 24 + extraBytes, name);
  return Math.ceil((24 + extraBytes + name.length) / 8) * 8;
}

/** A bitmap of 128 bits, of which the first one is set; it does not record. */
function withBitmap(options: EntryOptions = {}): SpecImage {
  const image = sound().u64(88, bit(0)).extension(112, EXTENSION, new Uint8Array(24));
  const length = entry(image, DIRECTORY, options);
  image
    .u32(FIELDS, 1)
    .u64(FIELDS + 8, length)
    .u64(FIELDS + 16, DIRECTORY);
  image.entry(PLACE.table, 0, BigInt(PLACE.data * 4096)).u8(PLACE.data * 4096, 1);
  for (const cluster of Object.values(PLACE)) image.refcount(cluster, 1);
  return image;
}

const badExtension = (rule: string): ReturnType<typeof refused> =>
  refused("ECORRUPT", rule, "bitmaps extension");

const EXTENSION_LINES: readonly SpecRecord[] = [
  { line: "the image with a bitmap is sound", build: () => withBitmap(), expected: {} },
  {
    line: "the extension without its autoclear bit is stale",
    build: () => withBitmap().u64(88, 0),
    expected: { check: { leaks: 3 } },
  },
  {
    line: "the extension without its autoclear bit may say anything",
    build: () =>
      withBitmap()
        .u64(88, 0)
        .u32(FIELDS, 0)
        .u64(FIELDS + 16, 7),
    expected: { check: { leaks: 3 } },
  },
  ...[0, 8, 23, 25, 32].map((length) => ({
    line: `the extension has 24 bytes: ${length}`,
    build: () => withBitmap().u32(116, length),
    expected: badExtension("Invalid extension length"),
  })),
  {
    line: "the extension is there once",
    build: () => {
      const image = withBitmap().extension(144, EXTENSION, new Uint8Array(24));
      return image.u32(152, 1).u64(160, 32).u64(168, DIRECTORY);
    },
    expected: {},
  },
  {
    line: "the extension is there once: the last one counts",
    build: () => {
      const image = withBitmap().extension(144, EXTENSION, new Uint8Array(24));
      return image
        .u32(152, 1)
        .u64(160, 32)
        .u64(168, DIRECTORY)
        .u64(FIELDS + 16, 14 * 4096);
    },
    expected: {},
  },
  {
    line: "nb_bitmaps is 1 at least",
    build: () => withBitmap().u32(FIELDS, 0),
    expected: badExtension("zero bitmaps"),
  },
  {
    line: "nb_bitmaps: QEMU takes 65535",
    build: () => withBitmap().u32(FIELDS, 65_536),
    expected: badExtension("65535 are allowed"),
  },
  {
    line: "nb_bitmaps: one that is not there",
    build: () => withBitmap().u32(FIELDS, 2),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1 },
    },
  },
  ...bits(0, 31).map((n) => ({
    line: `bytes 4 to 7 are reserved: bit ${n}`,
    build: () => withBitmap().u32(FIELDS + 4, 2 ** n),
    expected: badExtension("Reserved field is not zero"),
    row: true,
  })),
  ...[0, 8, 24, 31].map((length) => ({
    line: `bitmap_directory_size is that of all entries: less, ${length}`,
    build: () => withBitmap().u64(FIELDS + 8, length),
    expected: within(length, [
      [
        0,
        0,
        {
          write: writeRefused(
            "an entry breaks a rule, or does not fit the disk of 'qcow2'",
            "bitmap directory",
          ),
          check: { corruptions: 1, leaks: 3 },
        },
      ],
      [
        8,
        24,
        {
          write: writeRefused(
            "an entry breaks a rule, or does not fit the disk of 'qcow2'",
            "bitmap directory",
          ),
          check: { corruptions: 1, leaks: 2 },
        },
      ],
      [
        31,
        31,
        {
          write: writeRefused(
            "an entry breaks a rule, or does not fit the disk of 'qcow2'",
            "bitmap directory",
          ),
          check: { corruptions: 1 },
        },
      ],
    ]),
  })),
  ...[33, 40, 64, 4096].map((length) => ({
    line: `bitmap_directory_size is that of all entries: more, ${length}`,
    build: () => withBitmap().u64(FIELDS + 8, length),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1 },
    },
  })),
  {
    line: "bitmap_directory_size: QEMU takes 1024 bytes for each bitmap that may be",
    build: () => withBitmap().u64(FIELDS + 8, 65_535 * 1024 + 1),
    expected: badExtension("bitmap directory size"),
  },
  ...bits(27, 52).map((n) => ({
    line: `bitmap_directory_size has a limit: bit ${n}`,
    build: () => withBitmap().u64(FIELDS + 8, bit(n)),
    expected: badExtension("bitmap directory size"),
    row: true,
  })),
  {
    line: "bitmap_directory_size: behind the end of the file",
    build: () => withBitmap().u64(FIELDS + 8, 8 * 4096),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 2, leaks: 1 },
    },
  },
  {
    line: "bitmap_directory_offset is not 0",
    build: () => withBitmap().u64(FIELDS + 16, 0),
    expected: badExtension("invalid bitmap directory offset"),
  },
  ...bits(0, 11).map((n) => ({
    line: `bitmap_directory_offset is that of a cluster: bit ${n}`,
    build: () => withBitmap().flip(FIELDS + 16, bit(n)),
    expected: badExtension("invalid bitmap directory offset"),
    row: true,
  })),
  ...bits(16, 52).map((n) => ({
    line: `bitmap_directory_offset: behind the end of the file: bit ${n}`,
    build: () => withBitmap().flip(FIELDS + 16, bit(n)),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 2, leaks: 3 },
    },
    row: true,
  })),
  {
    line: "bitmap_directory_offset: on another table",
    build: () => withBitmap().u64(FIELDS + 16, 3 * 4096),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 2, leaks: 3 },
    },
  },
];

const DIRECTORY_LINES: readonly SpecRecord[] = [
  {
    line: "bitmap_table_offset is not 0",
    build: () => withBitmap().u64(DIRECTORY, 0),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
  },
  ...bits(0, 11).map((n) => ({
    line: `bitmap_table_offset is that of a cluster: bit ${n}`,
    build: () => withBitmap().flip(DIRECTORY, bit(n)),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
    row: true,
  })),
  ...bits(16, 63).map((n) => ({
    line: `bitmap_table_offset: behind the end of the file: bit ${n}`,
    build: () => withBitmap().flip(DIRECTORY, bit(n)),
    expected: within(n, [
      [16, 52, { check: { corruptions: 1, leaks: 2 } }],
      [
        53,
        63,
        {
          write: writeRefused(
            "an entry breaks a rule, or does not fit the disk of 'qcow2'",
            "bitmap directory",
          ),
          check: { corruptions: 1, leaks: 2 },
        },
      ],
    ]),
    row: true,
  })),
  ...[0, 2, 512, 0x2_0000, 0x2_0001, 0x800_0000, 0x800_0001, 0xffff_ffff].map((count) => ({
    line: `bitmap_table_size is what the disk needs: ${count}`,
    build: () => withBitmap().u32(DIRECTORY + 8, count),
    expected: within(count, [
      [
        0,
        0,
        {
          write: writeRefused(
            "an entry breaks a rule, or does not fit the disk of 'qcow2'",
            "bitmap directory",
          ),
          check: { corruptions: 1, leaks: 2 },
        },
      ],
      [
        2,
        512,
        {
          write: writeRefused(
            "an entry breaks a rule, or does not fit the disk of 'qcow2'",
            "bitmap directory",
          ),
          check: { corruptions: 1 },
        },
      ],
      [
        131072,
        131072,
        {
          write: writeRefused(
            "an entry breaks a rule, or does not fit the disk of 'qcow2'",
            "bitmap directory",
          ),
          check: { corruptions: 3, leaks: 1 },
        },
      ],
      [
        131073,
        4294967295,
        {
          write: writeRefused(
            "an entry breaks a rule, or does not fit the disk of 'qcow2'",
            "bitmap directory",
          ),
          check: { corruptions: 1, leaks: 2 },
        },
      ],
    ]),
  })),
  {
    line: "flags bit 0, in use: the bitmap is not to be trusted",
    build: () => withBitmap({ flags: 1 }),
    expected: {},
  },
  {
    line: "flags bit 0, in use: its table may have another length",
    build: () => withBitmap({ flags: 1 }).u32(DIRECTORY + 8, 2),
    expected: {},
  },
  { line: "flags bit 1, auto: it records", build: () => withBitmap({ flags: 2 }), expected: {} },
  {
    line: "flags bits 0 and 1",
    build: () => withBitmap({ flags: 3 }),
    expected: {},
  },
  {
    line: "flags bit 2, extra_data_compatible",
    build: () => withBitmap({ flags: 4 }),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
  },
  ...bits(3, 31).map((n) => ({
    line: `flags bit ${n} is reserved`,
    build: () => withBitmap().u32(DIRECTORY + 12, 2 ** n),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
    row: true,
  })),
  ...[0, ...bits(2, 255)].map((type) => ({
    line: `type is 1: ${type}`,
    build: () => withBitmap().u8(DIRECTORY + 16, type),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
    row: true,
  })),
  ...bits(9, 31).map((granularityBits) => ({
    line: `granularity_bits: QEMU takes 9 to 31: ${granularityBits}`,
    build: () => withBitmap({ granularityBits }),
    expected: {},
    row: true,
  })),
  ...[...bits(0, 8), ...bits(32, 64), 255].map((granularityBits) => ({
    line: `granularity_bits: QEMU takes no others: ${granularityBits}`,
    build: () => withBitmap({ granularityBits }),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
    row: true,
  })),
  {
    line: "name_size is not 0",
    build: () => withBitmap().u16(DIRECTORY + 18, 0),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
  },
  ...[1, 8, 255, 1023].map((length) => ({
    line: `name_size: QEMU takes 1023: ${length}`,
    build: () => withBitmap({ name: "n".repeat(length) }),
    expected: {},
  })),
  ...[1024, 2000].map((length) => ({
    line: `name_size: QEMU takes no more: ${length}`,
    build: () => withBitmap({ name: "n".repeat(length) }),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
  })),
  {
    line: "name_size: the name lies in the directory",
    build: () => withBitmap().u16(DIRECTORY + 18, 100),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
  },
  ...[1, 8, 100].flatMap((extraBytes) => [
    {
      line: `extra_data_size without extra_data_compatible: not to be used: ${extraBytes}`,
      build: () => withBitmap({ extraBytes }),
      expected: {},
    },
    {
      line: `extra_data_size with extra_data_compatible: ${extraBytes}`,
      build: () => withBitmap({ extraBytes, flags: 4 }),
      expected: {
        write: writeRefused(
          "an entry breaks a rule, or does not fit the disk of 'qcow2'",
          "bitmap directory",
        ),
        check: { corruptions: 1, leaks: 2 },
      },
    },
  ]),
  ...bits(12, 31).map((n) => ({
    line: `extra_data_size: the extra data lies in the directory: bit ${n}`,
    build: () => withBitmap().u32(DIRECTORY + 20, 2 ** n),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1, leaks: 2 },
    },
    row: true,
  })),
  ...bits(27, 31).map((at) => ({
    line: `padding of an entry is zero: byte ${at}`,
    build: () => withBitmap().u8(DIRECTORY + at, 0xee),
    expected: {},
  })),
  ...bits(1, 8).map((length) => ({
    line: `entries are padded to a multiple of 8: a name of ${length} bytes`,
    build: () => withTwo("n".repeat(length), "two"),
    expected: {},
  })),
  {
    line: "names are unique",
    build: () => withTwo("one", "one"),
    expected: {
      write: writeRefused(
        "an entry breaks a rule, or does not fit the disk of 'qcow2'",
        "bitmap directory",
      ),
      check: { corruptions: 1 },
    },
  },
  {
    line: "a table belongs to one bitmap",
    build: () => withTwo("one", "two", PLACE.table),
    expected: { check: { corruptions: 2, leaks: 1 } },
  },
];

/** Two bitmaps, of which the second one has a table without clusters. */
function withTwo(first: string, second: string, table = 12): SpecImage {
  const image = withBitmap({ name: first }).refcount(12, 1);
  const at = DIRECTORY + entry(image, DIRECTORY, { name: first });
  const end = at + entry(image, at, { name: second, table });
  return image.u32(FIELDS, 2).u64(FIELDS + 8, end - DIRECTORY);
}

const DATA = BigInt(PLACE.data * 4096);

const TABLE_LINES: readonly SpecRecord[] = [
  {
    line: "bitmap table entry 0: all bits are 0",
    build: () => withBitmap().entry(PLACE.table, 0, 0n).refcount(PLACE.data, 0),
    expected: {},
  },
  {
    line: "bitmap table entry: bit 0 without an offset, all bits are 1",
    build: () => withBitmap().entry(PLACE.table, 0, 1n).refcount(PLACE.data, 0),
    expected: {},
  },
  {
    line: "bitmap table entry: bit 0 is reserved with an offset",
    build: () => withBitmap().entry(PLACE.table, 0, DATA | 1n),
    expected: { check: { corruptions: 1, leaks: 1 } },
  },
  ...[...bits(1, 8), ...bits(56, 63)].flatMap((n) => [
    {
      line: `bitmap table entry: bit ${n} is reserved`,
      build: () => withBitmap().entry(PLACE.table, 0, DATA | bit(n)),
      expected: { check: { corruptions: 1, leaks: 1 } },
      row: true,
    },
    {
      line: `bitmap table entry: bit ${n} is reserved, also without an offset`,
      build: () => withBitmap().entry(PLACE.table, 0, bit(n)).refcount(PLACE.data, 0),
      expected: { check: { corruptions: 1 } },
      row: true,
    },
  ]),
  ...bits(9, 11).map((n) => ({
    line: `bitmap table entry: the cluster begins at a cluster: bit ${n}`,
    build: () => withBitmap().entry(PLACE.table, 0, DATA ^ bit(n)),
    expected: { check: { corruptions: 1, leaks: 1 } },
  })),
  ...bits(16, 55).map((n) => ({
    line: `bitmap table entry: a cluster behind the end of the file: bit ${n}`,
    build: () => withBitmap().entry(PLACE.table, 0, DATA | bit(n)),
    expected: { check: { corruptions: 1, leaks: 1 } },
    row: true,
  })),
  {
    line: "bitmap table entry: a cluster that is something else's",
    build: () => withBitmap().entry(PLACE.table, 0, 3n * 4096n),
    expected: { check: { corruptions: 1, leaks: 1 } },
  },
  ...[16, 17, 4095].map((at) => ({
    line: `bits behind the end of the disk are 0: byte ${at}`,
    build: () => withBitmap().u8(PLACE.data * 4096 + at, 0xff),
    expected: {},
  })),
  {
    line: "clusters of a bitmap count like others",
    build: () => withBitmap().refcount(PLACE.data, 0),
    expected: { check: { corruptions: 1 }, leftByLeaks: { checkErrors: 1 } },
  },
];

/** The same, recording: what is broken then stands in the way of a write. */
const RECORDING: readonly SpecRecord[] = [
  {
    line: "a bitmap that records: bit 0 of a table entry is reserved with an offset",
    build: () => withBitmap({ flags: 2 }).entry(PLACE.table, 0, DATA | 1n),
    expected: {
      write: writeRefused("entry 0 breaks a rule", "bitmap table"),
      check: { corruptions: 1, leaks: 1 },
    },
  },
  ...[...bits(1, 8), ...bits(56, 63)].map((n) => ({
    line: `a bitmap that records: bit ${n} of a table entry is reserved`,
    build: () => withBitmap({ flags: 2 }).entry(PLACE.table, 0, DATA | bit(n)),
    expected: {
      write: writeRefused("entry 0 breaks a rule", "bitmap table"),
      check: { corruptions: 1, leaks: 1 },
    },
    row: true,
  })),
  {
    line: "a bitmap that records: bits behind the end of the disk are 0",
    build: () => withBitmap({ flags: 2 }).u8(PLACE.data * 4096 + 16, 0xff),
    expected: {},
  },
];

const LATER = "QEMU reads all bitmaps when it opens an image, this driver when they are needed";
const EXTRA = "QEMU opens no image with extra data; the specification has it left as it is";
const BEYOND_LIMIT = "sizes and offsets of this driver end at 2^53 - 1";

const DIFFERENCES: readonly Difference[] = [
  {
    lines:
      /^(nb_bitmaps: one|bitmap_directory_size (is that|: behind)|bitmap_directory_size: behind|bitmap_directory_offset: |bitmap_table_offset is|bitmap_table_size|flags bit ([2-9]|[12][0-9]|3[01])[ ,]|type is|granularity_bits: QEMU takes no|name_size is|name_size: (QEMU takes no|the)|extra_data_size with |extra_data_size: |names are)/,
    differs: { read: LATER, check: LATER, guest: LATER },
  },
  {
    lines: /^bitmap_table_offset: behind the end of the file: bit 63$/,
    differs: { read: LATER, check: LATER, guest: LATER },
  },
  {
    lines: /^bitmap_table_offset: behind the end of the file: bit (5[3-9]|6[0-2])$/,
    differs: { info: BEYOND_LIMIT, write: BEYOND_LIMIT },
  },
  {
    lines: /^bitmap table entry: (bit [0-9]+ is reserved|the cluster begins)/,
    differs: { read: LATER, info: LATER, write: LATER, check: LATER, guest: LATER },
  },
  {
    lines: /^a bitmap that records: bit [0-9]+ /,
    differs: { read: LATER, info: LATER, check: LATER, guest: LATER },
  },
  {
    lines: /^extra_data_size without /,
    differs: {
      read: EXTRA,
      info: EXTRA,
      write: EXTRA,
      check: EXTRA,
      guest: EXTRA,
      repaired: EXTRA,
    },
  },
];

export const BITMAP_RECORDS: readonly SpecRecord[] = withDifferences(
  [...EXTENSION_LINES, ...DIRECTORY_LINES, ...TABLE_LINES, ...RECORDING],
  DIFFERENCES,
);
