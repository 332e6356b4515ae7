/** The snapshot table. */
import {
  bit,
  bits,
  within,
  writeRefused,
  type SpecRecord,
  withDifferences,
  type Difference,
} from "./record.js";
import { AT, COPIED, sound, type SpecImage } from "./spec-image.js";

/** Clusters of the snapshot: its table, its L1 table, its L2 table, data of its own. */
const PLACE = { table: 9, l1: 10, l2: 11, data: 12 } as const;
const TABLE = PLACE.table * 4096;

interface EntryOptions {
  readonly version?: 2 | 3;
  readonly id?: string;
  readonly name?: string;
  readonly extraBytes?: number;
  readonly diskBytes?: number;
}

/** Writes an entry of the table. @returns its length, padded */
function entry(image: SpecImage, at: number, options: EntryOptions = {}): number {
  const { id = "1", name = "one", extraBytes = 24, diskBytes = 65_536 } = options;
  image.u64(at, PLACE.l1 * 4096).u32(at + 8, 1);
  image.u16(at + 12, id.length).u16(at + 14, name.length);
  image
    .u32(at + 16, 1_700_000_000)
    .u32(at + 20, 5)
    .u64(at + 24, 77)
    .u32(at + 36, extraBytes);
  if (extraBytes >= 16) image.u64(at + 48, diskBytes);
  if (extraBytes >= 24) image.u64(at + 56, 0xffff_ffff_ffff_ffffn);
  image.text(at + 40 + extraBytes, id + name);
  const length = 40 + extraBytes + id.length + name.length;
  return Math.ceil(length / 8) * 8;
}

/** The active disk and the snapshot share guest cluster 0; guest cluster 1 is 7 in the snapshot. */
function withSnapshot(options: EntryOptions = {}): SpecImage {
  const image = sound(options.version === undefined ? {} : { version: options.version });
  image.u32(60, 1).u64(64, TABLE);
  entry(image, TABLE, options);
  image.entry(PLACE.l1, 0, BigInt(PLACE.l2 * 4096) | COPIED);
  image.entry(PLACE.l2, 0, BigInt(AT.data * 4096)).entry(PLACE.l2, 1, image.descriptor(PLACE.data));
  image
    .fill(PLACE.data, 7)
    .l2(0, BigInt(AT.data * 4096))
    .refcount(AT.data, 2);
  for (const cluster of Object.values(PLACE)) image.refcount(cluster, 1);
  return image;
}

const ENTRY_FIELDS: readonly SpecRecord[] = [
  { line: "the image with a snapshot is sound", build: () => withSnapshot(), expected: {} },
  {
    line: "the image of version 2 with a snapshot is sound",
    build: () => withSnapshot({ version: 2, extraBytes: 0 }),
    expected: {},
  },
  ...bits(0, 11).map((n) => ({
    line: `bytes 0 to 7: the L1 table begins at a cluster: bit ${n}`,
    build: () => withSnapshot().flip(TABLE, bit(n)),
    expected: { check: { corruptions: 1, leaks: 4 }, leftByLeaks: { corruptions: 2 } },
    row: true,
  })),
  ...bits(16, 63).map((n) => ({
    line: `bytes 0 to 7: an L1 table behind the end of the file: bit ${n}`,
    build: () => withSnapshot().flip(TABLE, bit(n)),
    expected: { check: { corruptions: 1, leaks: 4 }, leftByLeaks: { corruptions: 2 } },
    row: true,
  })),
  {
    line: "bytes 0 to 7: the L1 table lies on nothing else",
    build: () => withSnapshot().u64(TABLE, AT.l1 * 4096),
    expected: { check: { corruptions: 5, leaks: 3 } },
  },
  ...[0, 2, 512, 2 ** 22, 2 ** 22 + 1, 0xffff_ffff].map((count) => ({
    line: `bytes 8 to 11: entries of the L1 table: ${count}`,
    build: () => withSnapshot().u32(TABLE + 8, count),
    expected: within(count, [
      [0, 0, { check: { leaks: 4 } }],
      [2, 512, {}],
      [
        4194304,
        4194304,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0xd000 would overwrite it",
            "inactive L1 table",
          ),
          check: { corruptions: 4099, leaks: 1 },
        },
      ],
      [
        4194305,
        4294967295,
        { check: { corruptions: 1, leaks: 4 }, leftByLeaks: { corruptions: 2 } },
      ],
    ]),
  })),
  ...[0, 127, 128, 1000].map((length) => ({
    line: `bytes 12 and 13: the length of the identity: ${length}`,
    build: () => withSnapshot({ id: "7".repeat(length) }),
    expected: {},
  })),
  ...[0, 255, 256, 1000].map((length) => ({
    line: `bytes 14 and 15: the length of the name: ${length}`,
    build: () => withSnapshot({ name: "n".repeat(length) }),
    expected: {},
  })),
  {
    line: "bytes 12 to 15: texts up to the end of the file and beyond",
    build: () =>
      withSnapshot()
        .u16(TABLE + 12, 0xffff)
        .u16(TABLE + 14, 0xffff),
    expected: {
      write: writeRefused("a write of 4096 bytes to 0xd000 would overwrite it", "snapshot table"),
      check: { corruptions: 1, leaks: 1 },
    },
  },
  {
    line: "bytes 16 to 19: any second",
    build: () => withSnapshot().u32(TABLE + 16, 0xffff_ffff),
    expected: {},
  },
  {
    line: "bytes 20 to 23: any part of a second",
    build: () => withSnapshot().u32(TABLE + 20, 0xffff_ffff),
    expected: {},
  },
  {
    line: "bytes 24 to 31: any run time",
    build: () => withSnapshot().u64(TABLE + 24, 0xffff_ffff_ffff_ffffn),
    expected: {},
  },
  {
    line: "bytes 32 to 35: the size of VM state is ignored where bytes 40 to 47 are",
    build: () => withSnapshot().u32(TABLE + 32, 0xffff_ffff),
    expected: {},
  },
  {
    line: "bytes 32 to 35: the size of VM state in version 2",
    build: () => withSnapshot({ version: 2, extraBytes: 0 }).u32(TABLE + 32, 0xffff_ffff),
    expected: {},
  },
];

const EXTRA_DATA: readonly SpecRecord[] = [
  ...[0, 1, 7, 8, 15].map((extraBytes) => ({
    line: `bytes 36 to 39: version 3 has 16 bytes of extra data at least: ${extraBytes}`,
    build: () => withSnapshot({ extraBytes }),
    expected: { check: { corruptions: 1 } },
  })),
  ...[0, 1, 7, 8, 15, 16, 24].map((extraBytes) => ({
    line: `bytes 36 to 39: version 2 may have any extra data: ${extraBytes}`,
    build: () => withSnapshot({ version: 2, extraBytes }),
    expected: {},
  })),
  ...[16, 17, 23, 24, 25, 32, 1000, 1024].map((extraBytes) => ({
    line: `bytes 36 to 39: extra data that is unknown is ignored: ${extraBytes}`,
    build: () => withSnapshot({ extraBytes }),
    expected: {},
  })),
  {
    line: "bytes 36 to 39: QEMU takes 1024 bytes of extra data",
    build: () => withSnapshot({ extraBytes: 1025 }),
    expected: { check: { leaks: 5, checkErrors: 1 }, leftByLeaks: { leaks: 5, checkErrors: 1 } },
  },
  ...bits(11, 31).map((n) => ({
    line: `bytes 36 to 39: QEMU takes 1024 bytes of extra data: bit ${n}`,
    build: () => withSnapshot().u32(TABLE + 36, 2 ** n),
    expected: { check: { leaks: 5, checkErrors: 1 }, leftByLeaks: { leaks: 5, checkErrors: 1 } },
    row: true,
  })),
  ...[0, 1, 63].map((n) => ({
    line: `bytes 40 to 47: any size of VM state: bit ${n}`,
    build: () => withSnapshot().flip(TABLE + 40, bit(n)),
    expected: {},
  })),
  ...[0, 512, 4096, 2 ** 40].map((diskBytes) => ({
    line: `bytes 48 to 55: the disk had another size: ${diskBytes}`,
    build: () => withSnapshot({ diskBytes }),
    expected: {},
  })),
  ...bits(53, 63).map((n) => ({
    line: `bytes 48 to 55: the disk had another size: bit ${n}`,
    build: () => withSnapshot().u64(TABLE + 48, bit(n)),
    expected: {},
    row: true,
  })),
];

/** Two entries, of which the first one has this name. */
function withTwo(name: string, id = "2"): SpecImage {
  const image = withSnapshot({ name });
  const second = TABLE + entry(image, TABLE, { name });
  entry(image, second, { id, name: "two" });
  image.u32(60, 2).entry(PLACE.l1, 0, BigInt(PLACE.l2 * 4096));
  image.refcount(PLACE.l1, 2).refcount(PLACE.l2, 2).refcount(PLACE.data, 2).refcount(AT.data, 3);
  return image;
}

const TABLE_LINES: readonly SpecRecord[] = [
  ...bits(0, 8).map((length) => ({
    line: `entries are padded to a multiple of 8: a name of ${length} bytes`,
    build: () => withTwo("n".repeat(length)),
    expected: {},
  })),
  {
    line: "identities are unique",
    build: () => withTwo("one", "1"),
    expected: {},
  },
  {
    line: "names need not be unique",
    build: () => withTwo("two"),
    expected: {},
  },
  {
    line: "nb_snapshots is how many entries there are: one that is not there is empty",
    build: () => withSnapshot().u32(60, 2),
    expected: { check: { corruptions: 1 } },
  },
  {
    line: "nb_snapshots is how many entries there are: 65536 of them are in the file",
    build: () => withSnapshot().u32(60, 65_536),
    expected: {
      write: writeRefused("a write of 4096 bytes to 0xd000 would overwrite it", "snapshot table"),
      check: { corruptions: 65537, leaks: 1 },
    },
  },
  {
    line: "the snapshot table lies on no other table",
    build: () => withSnapshot().u64(64, AT.l1 * 4096),
    expected: { check: { corruptions: 2, leaks: 5 }, leftByLeaks: { corruptions: 3 } },
  },
  {
    line: "the snapshot table begins behind the end of the file",
    build: () => withSnapshot().u64(64, 2 ** 30),
    expected: { check: { corruptions: 2, leaks: 5 }, leftByLeaks: { corruptions: 3 } },
  },
  {
    line: "snapshots_offset 0 with a snapshot: the header is no table",
    build: () => withSnapshot().u64(64, 0),
    expected: { check: { corruptions: 3, leaks: 5 }, leftByLeaks: { corruptions: 4 } },
  },
  {
    line: "bit 63 means nothing in a snapshot's L1 table",
    build: () => withSnapshot().entry(PLACE.l1, 0, BigInt(PLACE.l2 * 4096)),
    expected: {},
  },
  {
    line: "bit 63 means nothing in a snapshot's L2 table",
    build: () => withSnapshot().entry(PLACE.l2, 0, BigInt(AT.data * 4096) | COPIED),
    expected: {},
  },
  {
    line: "a snapshot's data counts like any other",
    build: () => withSnapshot().refcount(PLACE.data, 0),
    expected: { check: { corruptions: 1 }, leftByLeaks: { checkErrors: 1 } },
  },
];

/** Rules of L1 and L2 entries hold in a snapshot as well. */
const SNAPSHOT_TABLES: readonly SpecRecord[] = [
  ...[...bits(0, 8), ...bits(56, 62)].map((n) => ({
    line: `L1 entry of a snapshot: bit ${n} is reserved`,
    build: () => withSnapshot().entry(PLACE.l1, 0, BigInt(PLACE.l2 * 4096) | COPIED | bit(n)),
    expected: { check: { corruptions: 1 } },
    row: true,
  })),
  ...[...bits(1, 8), ...bits(56, 61)].map((n) => ({
    line: `L2 entry of a snapshot: bit ${n} is reserved`,
    build: () => withSnapshot().entry(PLACE.l2, 0, BigInt(AT.data * 4096) | bit(n)),
    expected: { check: { corruptions: 1 } },
    row: true,
  })),
  ...bits(9, 11).map((n) => ({
    line: `L1 entry of a snapshot: the L2 table begins at a cluster: bit ${n}`,
    build: () => withSnapshot().entry(PLACE.l1, 0, BigInt(PLACE.l2 * 4096) | COPIED | bit(n)),
    expected: within(n, [
      [9, 9, { check: { corruptions: 193, leaks: 1 }, leftByLeaks: { corruptions: 194 } }],
      [10, 10, { check: { corruptions: 385, leaks: 1 }, leftByLeaks: { corruptions: 386 } }],
      [11, 11, { check: { corruptions: 769, leaks: 1 }, leftByLeaks: { corruptions: 770 } }],
    ]),
  })),
  ...bits(9, 11).map((n) => ({
    line: `L2 entry of a snapshot: the cluster begins at a cluster: bit ${n}`,
    build: () => withSnapshot().entry(PLACE.l2, 0, BigInt(AT.data * 4096) | bit(n)),
    expected: { check: { corruptions: 2 } },
  })),
];

const OPENS = "the disk does not need the snapshot table, and opens without it";

const DIFFERENCES: readonly Difference[] = [
  {
    lines: /an L1 table behind the end of the file: bit 63$/,
    differs: { check: "QEMU's check ends there" },
  },
  {
    lines: /^bytes 8 to 11: .* (4194305|4294967295)$/,
    differs: { write: "QEMU guards the place of a table that is too long to be one" },
  },
  {
    lines: /^bytes 36 to 39: QEMU takes 1024 /,
    differs: { read: OPENS, write: OPENS, check: OPENS, guest: OPENS },
  },
];

export const SNAPSHOT_RECORDS: readonly SpecRecord[] = withDifferences(
  [...ENTRY_FIELDS, ...EXTRA_DATA, ...TABLE_LINES, ...SNAPSHOT_TABLES],
  DIFFERENCES,
);
