/** The refcount table and the refcount blocks. */
import {
  bit,
  bits,
  within,
  writeRefused,
  type SpecRecord,
  withDifferences,
  type Difference,
} from "./record.js";
import { AT, sound, type SpecImage } from "./spec-image.js";

const BLOCK = BigInt(AT.refcountBlock * 4096);

function withTableEntry(value: bigint): SpecImage {
  return sound().entry(AT.refcountTable, 0, value);
}

const TABLE: readonly SpecRecord[] = [
  ...bits(0, 8).map((n) => ({
    line: `refcount table entry: bit ${n} is reserved`,
    build: () => withTableEntry(BLOCK | bit(n)),
    expected: { check: { corruptions: 1, leaks: 1 }, leftByLeaks: { leaks: 1, checkErrors: 1 } },
    row: true,
  })),
  ...bits(9, 11).map((n) => ({
    line: `refcount table entry: the block begins at a cluster: bit ${n}`,
    build: () => withTableEntry(BLOCK | bit(n)),
    expected: {
      write: writeRefused("entry 0 is", "refcount table"),
      check: { corruptions: 1, checkErrors: 16 },
      leftByLeaks: { checkErrors: 17 },
    },
  })),
  ...bits(16, 63).map((n) => ({
    line: `refcount table entry: a block behind the end of the file: bit ${n}`,
    build: () => withTableEntry(BLOCK | bit(n)),
    expected: within(n, [
      [
        16,
        52,
        {
          write: writeRefused(
            "refcount block: the refcount of cluster 0, which holds the header, is 0",
            "refcount block",
          ),
          check: { corruptions: 14 },
          leftByLeaks: { checkErrors: 1 },
        },
      ],
      [
        53,
        62,
        {
          write: writeRefused("entry 0 is", "refcount table"),
          check: { corruptions: 14 },
          leftByLeaks: { checkErrors: 1 },
        },
      ],
      [
        63,
        63,
        {
          write: writeRefused("not the offset of a cluster", "refcount table"),
          check: { corruptions: 1, checkErrors: 16 },
          leftByLeaks: { checkErrors: 17 },
        },
      ],
    ]),
    row: true,
  })),
  {
    line: "refcount table entry 0: all refcounts of the block are 0",
    build: () => withTableEntry(0n),
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
    line: "refcount table entry 0: so nothing of the file that nobody refers to is missing",
    build: () => sound().entry(AT.refcountTable, 1, 0n),
    expected: {},
  },
  {
    line: "refcount table entries name a block each",
    build: () => sound().entry(AT.refcountTable, 1, BLOCK),
    expected: { check: { corruptions: 2 }, leftByLeaks: { checkErrors: 1 } },
  },
  {
    line: "a second refcount block is one cluster that counts as well",
    build: () =>
      sound()
        .entry(AT.refcountTable, 1, 9n * 4096n)
        .refcount(9, 1),
    expected: {},
  },
  ...[0, 1, 3, 4, 5].map((cluster) => ({
    line: `a refcount block lies on nothing else: not on cluster ${cluster}`,
    build: () => withTableEntry(BigInt(cluster * 4096)),
    expected: within(cluster, [
      [
        0,
        0,
        {
          write: writeRefused(
            "refcount block: the refcount of cluster 0, which holds the header, is 0",
            "refcount block",
          ),
          check: { corruptions: 13 },
          leftByLeaks: { checkErrors: 1 },
        },
      ],
      [
        1,
        1,
        {
          write: writeRefused(
            "refcount block: the refcount of cluster 0, which holds the header, is 0",
            "refcount block",
          ),
          check: { corruptions: 13, leaks: 1 },
          leftByLeaks: { leaks: 1, checkErrors: 1 },
        },
      ],
      [
        3,
        3,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x1000 would overwrite it",
            "refcount table",
          ),
          check: { corruptions: 12, leaks: 2 },
          leftByLeaks: { leaks: 2, checkErrors: 1 },
        },
      ],
      [
        4,
        4,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x1000 would overwrite it",
            "refcount table",
          ),
          check: { corruptions: 9, leaks: 8 },
          leftByLeaks: { leaks: 8, checkErrors: 1 },
        },
      ],
      [
        5,
        5,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x5000 would overwrite it",
            "refcount block",
          ),
          check: { corruptions: 6, leaks: 16 },
          leftByLeaks: { leaks: 16, checkErrors: 1 },
        },
      ],
    ]),
  })),
];

/** The largest count of a width, or what a JavaScript reader might take for it. */
const LARGEST = [1n, 3n, 15n, 255n, 65_535n, 2n ** 32n - 1n, 2n ** 64n - 1n] as const;

const BLOCKS: readonly SpecRecord[] = [
  ...bits(0, 6).flatMap((refcountOrder) => {
    const largest = LARGEST[refcountOrder] as bigint;
    return [
      {
        line: `refcount entry of order ${refcountOrder}: 0 for a cluster in use is too low`,
        build: () => sound({ refcountOrder }).refcount(AT.data + 1, 0),
        expected: { check: { corruptions: 2 }, leftByLeaks: { checkErrors: 1 } },
      },
      {
        line: `refcount entry of order ${refcountOrder}: 1 for a free cluster is a leak`,
        build: () => sound({ refcountOrder }).refcount(AT.free + 1, 1),
        expected: { check: { leaks: 1 } },
      },
      {
        line: `refcount entry of order ${refcountOrder}: the largest count`,
        build: () => sound({ refcountOrder }).refcount(AT.free + 1, largest),
        expected: { check: { leaks: 1 } },
      },
      {
        line: `refcount entry of order ${refcountOrder}: the largest count, of data in use`,
        build: () => sound({ refcountOrder }).refcount(AT.data, largest),
        expected: within(refcountOrder, [
          [0, 0, {}],
          [1, 5, { check: { corruptions: 1, leaks: 1 }, leftByLeaks: { corruptions: 0 } }],
          [
            6,
            6,
            {
              write: writeRefused("refcount of entry 5 is above 2^53 - 1", "refcount block"),
              check: { corruptions: 1, leaks: 1 },
              leftByLeaks: { corruptions: 0 },
            },
          ],
        ]),
      },
    ];
  }),
  ...bits(1, 6).map((refcountOrder) => ({
    line: `refcount entry of order ${refcountOrder}: 2 is used twice, and a write copies`,
    build: () => {
      const image = sound({ refcountOrder }).refcount(AT.data, 2);
      const shared = BigInt(image.offset(AT.data));
      return image.l2(0, shared).l2(15, shared);
    },
    expected: { guest: "1234...........1" },
  })),
  {
    line: "refcount entry of order 0: no cluster is used twice",
    build: () => {
      const image = sound({ refcountOrder: 0 });
      return image.l2(15, image.descriptor(AT.data));
    },
    expected: { guest: "1234...........1", check: { corruptions: 1 } },
  },
  ...[53, 62, 63].map((n) => ({
    line: `refcount entry of order 6: a count of 2^${n}`,
    build: () => sound({ refcountOrder: 6 }).refcount(AT.data, bit(n)),
    expected: {
      write: writeRefused("refcount of entry 5 is above 2^53 - 1", "refcount block"),
      check: { corruptions: 1, leaks: 1 },
      leftByLeaks: { corruptions: 0 },
    },
  })),
  ...[0, 1, 2, 3, 4].map((cluster) => ({
    line: `every table is counted: not cluster ${cluster}`,
    build: () => sound().refcount(cluster, 0),
    expected: within(cluster, [
      [
        0,
        0,
        {
          write: writeRefused(
            "refcount block: the refcount of cluster 0, which holds the header, is 0",
            "refcount block",
          ),
          check: { corruptions: 1 },
          leftByLeaks: { checkErrors: 1 },
        },
      ],
      [
        1,
        1,
        {
          write: writeRefused(
            "a write of 4096 bytes to 0x1000 would overwrite it",
            "refcount table",
          ),
          check: { corruptions: 1 },
          leftByLeaks: { checkErrors: 1 },
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
          check: { corruptions: 1 },
          leftByLeaks: { checkErrors: 1 },
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
          check: { corruptions: 1 },
          leftByLeaks: { checkErrors: 1 },
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
          check: { corruptions: 2 },
          leftByLeaks: { checkErrors: 1 },
        },
      ],
    ]),
  })),
];

const DIFFERENCES: readonly Difference[] = [
  {
    lines: /^refcount entry of order 6: (the largest count, of data|a count of)/,
    differs: { write: "this driver counts up to 2^53 - 1" },
  },
];

export const REFCOUNT_RECORDS: readonly SpecRecord[] = withDifferences(
  [...TABLE, ...BLOCKS],
  DIFFERENCES,
);
