/** L1 entries, and L2 entries of standard clusters. */
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

const L2 = BigInt(AT.l2 * 4096);

function withL1(value: bigint): SpecImage {
  return sound().entry(AT.l1, 0, value);
}

/** Guest cluster 0 with these bits turned over. */
function withBits(value: bigint, version: 2 | 3 = 3): SpecImage {
  const image = sound({ version });
  return image.l2(0, image.descriptor(AT.data) ^ value);
}

const L1_ENTRIES: readonly SpecRecord[] = [
  ...[...bits(0, 8), ...bits(56, 62)].map((n) => ({
    line: `L1 entry: bit ${n} is reserved`,
    build: () => withL1(L2 | COPIED | bit(n)),
    expected: { check: { corruptions: 1 } },
    row: true,
  })),
  ...bits(9, 11).map((n) => ({
    line: `L1 entry: the L2 table begins at a cluster: bit ${n}`,
    build: () => withL1(L2 | COPIED | bit(n)),
    expected: within(n, [
      [
        9,
        9,
        {
          write: writeRefused("not the offset of a cluster", "L1 table"),
          guest: "!!!!!!!!!!!!!!!!",
          check: { corruptions: 129, leaks: 3 },
        },
      ],
      [
        10,
        10,
        {
          write: writeRefused("not the offset of a cluster", "L1 table"),
          guest: "!!!!!!!!!!!!!!!!",
          check: { corruptions: 257, leaks: 3 },
        },
      ],
      [
        11,
        11,
        {
          write: writeRefused("not the offset of a cluster", "L1 table"),
          guest: "!!!!!!!!!!!!!!!!",
          check: { corruptions: 513, leaks: 3 },
        },
      ],
    ]),
  })),
  ...bits(16, 55).map((n) => ({
    line: `L1 entry: an L2 table behind the end of the file: bit ${n}`,
    build: () => withL1(L2 | COPIED | bit(n)),
    expected: within(n, [
      [16, 52, { guest: "................", check: { corruptions: 2, leaks: 5 } }],
      [
        53,
        55,
        {
          write: writeRefused("entry 0 is", "L1 table"),
          guest: "!!!!!!!!!!!!!!!!",
          check: { corruptions: 2, leaks: 5 },
        },
      ],
    ]),
    row: true,
  })),
  {
    line: "L1 entry with offset 0: nothing of its L2 table is allocated",
    build: () => withL1(0n),
    expected: { guest: "................", check: { leaks: 5 } },
  },
  {
    line: "L1 entry with offset 0 and bit 63",
    build: () => withL1(COPIED),
    expected: { guest: "................", check: { corruptions: 9, leaks: 5 } },
  },
  {
    line: "L1 entry: bit 63 is 1 for a table whose refcount is 1",
    build: () => withL1(L2),
    expected: { check: { corruptions: 1 }, leftByLeaks: { corruptions: 0 } },
  },
  {
    line: "L1 entry: bit 63 is 0 for a table whose refcount is not 1",
    build: () => sound().refcount(AT.l2, 2),
    expected: { check: { corruptions: 1, leaks: 1 }, leftByLeaks: { corruptions: 0 } },
  },
  {
    line: "L1 entries may share an L2 table",
    build: () => sound().u32(36, 2).entry(AT.l1, 0, L2).entry(AT.l1, 1, L2).refcount(AT.l2, 2),
    expected: { check: { corruptions: 4 } },
  },
  ...[0, 1, 2, 3, 5].map((cluster) => ({
    line: `an L2 table lies on nothing else: not on cluster ${cluster}`,
    build: () => withL1(BigInt(cluster * 4096) | COPIED),
    expected: within(cluster, [
      [0, 0, { guest: "................", check: { corruptions: 9, leaks: 5 } }],
      [
        1,
        1,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x1000 would overwrite it",
            "refcount table",
          ),
          guest: "?...............",
          check: { corruptions: 4, leaks: 5 },
          leftByLeaks: { leaks: 5, checkErrors: 1 },
        },
      ],
      [
        2,
        2,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x2000 would overwrite it",
            "active L2 table",
          ),
          guest: "................",
          check: { corruptions: 5, leaks: 5 },
          leftByLeaks: { leaks: 5, checkErrors: 1 },
        },
      ],
      [
        3,
        3,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x3000 would overwrite it",
            "active L1 table",
          ),
          guest: "?...............",
          check: { corruptions: 1, leaks: 5 },
        },
      ],
      [
        5,
        5,
        {
          write: writeRefused(
            "refcount block: a table names the cluster at 0x1010101010000, and its refcount is 0",
            "refcount block",
          ),
          guest: "................",
          check: { corruptions: 1024, leaks: 4 },
        },
      ],
    ]),
  })),
];

const L2_ENTRIES: readonly SpecRecord[] = [
  {
    line: "L2 entry: bit 0 reads as zeroes, with a cluster set aside",
    build: () => withBits(bit(0)),
    expected: { guest: ".234............" },
  },
  {
    line: "L2 entry: bit 0 reads as zeroes, without a cluster",
    build: () => sound().l2(4, bit(0)),
    expected: {},
  },
  {
    line: "L2 entry: bit 0 hides the backing file",
    build: () => sound().l2(4, bit(0)).extension(112, 0xe279_2aca, "raw").backing(200, "base.raw"),
    expected: { guest: "1234.66666666666" },
    backing: () => new Uint8Array(65_536).fill(6),
  },
  {
    line: "L2 entry: what is not allocated is read from the backing file, and zeroes behind its end",
    build: () => sound().extension(112, 0xe279_2aca, "raw").backing(200, "base.raw"),
    expected: { guest: "12346666........" },
    backing: () => new Uint8Array(8 * 4096).fill(6),
  },
  {
    line: "L2 entry: bit 0 is always 0 in version 2",
    build: () => withBits(bit(0), 2),
    expected: {
      write: writeRefused("the entry is the zero flag, which version 2 does not have", "L2 table"),
      guest: "!234............",
    },
  },
  {
    line: "L2 entry: bit 0 is always 0 in version 2, also without a cluster",
    build: () => sound({ version: 2 }).l2(4, bit(0)),
    expected: { guest: "1234!..........." },
  },
  ...[...bits(1, 8), ...bits(56, 61)].map((n) => ({
    line: `L2 entry: bit ${n} is reserved`,
    build: () => withBits(bit(n)),
    expected: { check: { corruptions: 1 } },
    row: true,
  })),
  ...bits(9, 11).map((n) => ({
    line: `L2 entry: the cluster begins at a cluster: bit ${n}`,
    build: () => withBits(bit(n)),
    expected: {
      write: writeRefused("the entry is", "L2 table"),
      guest: "!234............",
      check: { corruptions: 2 },
    },
  })),
  ...bits(9, 11).map((n) => ({
    line: `L2 entry: a cluster set aside begins at a cluster: bit ${n}`,
    build: () => withBits(bit(n) | bit(0)),
    expected: {
      write: writeRefused("the entry is", "L2 table"),
      guest: "!234............",
      check: { corruptions: 2 },
    },
  })),
  ...bits(16, 55).map((n) => ({
    line: `L2 entry: a cluster behind the end of the file: bit ${n}`,
    build: () => withBits(bit(n)),
    expected: within(n, [
      [16, 52, { guest: ".234............", check: { corruptions: 2, leaks: 1 } }],
      [
        53,
        55,
        {
          write: writeRefused("the entry is", "L2 table"),
          guest: "!234............",
          check: { corruptions: 2, leaks: 1 },
        },
      ],
    ]),
    row: true,
  })),
  {
    line: "L2 entry: bit 63 is 1 for a cluster whose refcount is 1",
    build: () => withBits(COPIED),
    expected: { check: { corruptions: 1 }, leftByLeaks: { corruptions: 0 } },
  },
  {
    line: "L2 entry: bit 63 is 0 for a cluster whose refcount is not 1",
    build: () => sound().refcount(AT.data, 2),
    expected: { check: { corruptions: 1, leaks: 1 }, leftByLeaks: { corruptions: 0 } },
  },
  {
    line: "L2 entry: offset 0 and bit 63 is no cluster without an external data file",
    build: () => sound().l2(4, COPIED),
    expected: {},
  },
  {
    line: "L2 entry: a cluster may be named twice, with refcount 2",
    build: () => {
      const image = sound().refcount(AT.data, 2);
      return image.l2(0, BigInt(AT.data * 4096)).l2(15, BigInt(AT.data * 4096));
    },
    expected: { guest: "1234...........1" },
  },
  ...[1, 2, 3, 4].map((cluster) => ({
    line: `data lies on no table: not on cluster ${cluster}`,
    build: () => sound().l2(0, BigInt(cluster * 4096) | COPIED),
    expected: within(cluster, [
      [
        1,
        1,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x1000 would overwrite it",
            "refcount table",
          ),
          guest: "?234............",
          check: { corruptions: 1, leaks: 1 },
        },
      ],
      [
        2,
        2,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x2000 would overwrite it",
            "refcount block",
          ),
          guest: "?234............",
          check: { corruptions: 2, leaks: 1 },
          leftByLeaks: { leaks: 1, checkErrors: 1 },
        },
      ],
      [
        3,
        3,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x3000 would overwrite it",
            "active L1 table",
          ),
          guest: "?234............",
          check: { corruptions: 1, leaks: 1 },
        },
      ],
      [
        4,
        4,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x4000 would overwrite it",
            "active L2 table",
          ),
          guest: "?234............",
          check: { corruptions: 1, leaks: 1 },
        },
      ],
    ]),
  })),
  {
    line: "data may lie behind the end of the file, where it reads as zeroes",
    build: () =>
      sound()
        .l2(4, (20n * 4096n) | COPIED)
        .refcount(20, 1),
    expected: { check: { corruptions: 1 } },
  },
];

const DIFFERENCES: readonly Difference[] = [
  {
    lines: /behind the end of the file: bit 5[3-5]$/,
    differs: { guest: "sizes and offsets of this driver end at 2^53 - 1" },
  },
  {
    lines: /behind the end of the file: bit (4[0-9]|5[0-2])$/,
    unjudged: "whether QEMU can write there depends on the file system",
  },
  {
    lines:
      /^(L1 entry with offset 0 and bit 63|an L2 table lies on nothing else: not on cluster 0)$/,
    differs: { write: "QEMU reads no table there, and then takes the header for one" },
  },
  {
    lines: /^an L2 table lies on nothing else: not on cluster 5$/,
    unjudged: "what QEMU would free lies at 2^48, where not every file system has a file end",
  },
  {
    lines: /^L2 entry: bit 0 is always 0 in version 2$/,
    differs: { write: "what cannot be read is not written over in part either" },
  },
];

export const MAPPING_RECORDS: readonly SpecRecord[] = withDifferences(
  [...L1_ENTRIES, ...L2_ENTRIES],
  DIFFERENCES,
);
