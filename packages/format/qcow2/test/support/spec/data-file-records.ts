/** Images whose guest data lies in an external data file. */
import { bits, refused, type SpecRecord, withDifferences, type Difference } from "./record.js";
import { AT, COMPRESSED, COPIED, sound, type SpecImage } from "./spec-image.js";

const NAME = 0x4441_5441;

/** As the sound image shows it: guest clusters 0 to 3 full of 1, 2, 3, 4. */
const dataFile = (): Uint8Array => {
  const bytes = new Uint8Array(16 * 4096);
  for (let i = 0; i < 4; i++) bytes.fill(i + 1, i * 4096, (i + 1) * 4096);
  return bytes;
};

/** Clusters of data lie at their guest offsets, and are not counted. */
function external({ raw = false }: { readonly raw?: boolean } = {}): SpecImage {
  const image = sound().u64(72, 4).extension(112, NAME, "data.raw");
  if (raw) image.u64(88, 2);
  for (let i = 0; i < 4; i++) image.l2(i, BigInt(i * 4096) | COPIED).refcount(AT.data + i, 0);
  return image;
}

const DIFFERENCES: readonly Difference[] = [
  {
    lines: /^the data file's name need not be there/,
    differs: {
      info: "QEMU's info opens no data file",
      check: "this check reads the image alone",
      repaired: "this repair reads the image alone",
    },
  },
];

export const DATA_FILE_RECORDS: readonly SpecRecord[] = withDifferences(
  [
    {
      line: "the image with a data file is sound",
      build: () => external(),
      expected: {},
      dataFile,
    },
    {
      line: "the image with a raw data file is sound",
      build: () => external({ raw: true }),
      expected: {},
      dataFile,
    },
    {
      line: "the data file's name is there once: the last one counts",
      build: () => external().extension(112, NAME, "nosuch.x").extension(128, NAME, "data.raw"),
      expected: {},
      dataFile,
    },
    {
      line: "the data file's name without the bit is ignored",
      build: () => sound().extension(112, NAME, "data.raw"),
      expected: {},
    },
    {
      line: "the data file's name need not be there, but then one must be given",
      build: () => external().u32(112, 0x1234_5678),
      expected: refused("EINVAL", "'data-file' is required"),
    },
    {
      line: "the offset is the guest's: not that of another cluster",
      build: () => external().l2(1, (2n * 4096n) | COPIED),
      expected: { guest: "1!34............" },
      dataFile,
    },
    {
      line: "the offset is the guest's: not one within a cluster",
      build: () => external().l2(1, 4608n | COPIED),
      expected: { guest: "1!34............", check: { corruptions: 1 } },
      dataFile,
    },
    {
      line: "bit 63 is 1 for clusters that are allocated",
      build: () => external().l2(1, 4096n),
      expected: { check: { corruptions: 1 }, leftByLeaks: { corruptions: 0 } },
      dataFile,
    },
    {
      line: "offset 0 without bit 63 is not allocated",
      build: () => external().l2(0, 0n),
      expected: { guest: ".234............" },
      dataFile,
    },
    {
      line: "what is not allocated is not read from the data file",
      build: () => external().l2(2, 0n),
      expected: { guest: "12.4............" },
      dataFile,
    },
    {
      line: "bit 0 reads as zeroes",
      build: () => external().l2(1, 4097n | COPIED),
      expected: { guest: "1.34............" },
      dataFile,
    },
    {
      line: "compressed clusters are not allowed",
      build: () => {
        const image = external().refcount(AT.free, 1);
        return image.l2(4, COMPRESSED | BigInt(image.offset(AT.free)));
      },
      expected: { guest: "1234!...........", check: { corruptions: 1, leaks: 1 } },
      dataFile,
    },
    {
      line: "internal snapshots are not allowed",
      build: () => {
        const image = external()
          .u32(60, 1)
          .u64(64, 9 * 4096)
          .refcount(9, 1)
          .refcount(10, 1);
        image
          .u64(9 * 4096, 10 * 4096)
          .u32(9 * 4096 + 8, 1)
          .u16(9 * 4096 + 12, 1);
        return image
          .u32(9 * 4096 + 36, 24)
          .u64(9 * 4096 + 48, 65_536)
          .text(9 * 4096 + 64, "1");
      },
      expected: { check: { corruptions: 1 }, left: { corruptions: 1 } },
      dataFile,
    },
    {
      line: "a raw data file and a backing file are not allowed together",
      build: () =>
        external({ raw: true }).extension(128, 0xe279_2aca, "raw").backing(200, "base.raw"),
      expected: { guest: "1234666666666666" },
      dataFile,
      backing: () => new Uint8Array(65_536).fill(6),
    },
    {
      line: "a data file and a backing file are",
      build: () => external().extension(128, 0xe279_2aca, "raw").backing(200, "base.raw"),
      expected: { guest: "1234666666666666" },
      dataFile,
      backing: () => new Uint8Array(65_536).fill(6),
    },
    {
      line: "clusters of the data file are not counted: a refcount is a leak",
      build: () => external().refcount(AT.data, 1),
      expected: { check: { leaks: 1 } },
      dataFile,
    },
    ...[...bits(1, 8), ...bits(56, 61)].map((n) => ({
      line: `L2 entry of a data file's cluster: bit ${n} is reserved`,
      build: () => external().l2(1, 4096n | COPIED | (1n << BigInt(n))),
      expected: { check: { corruptions: 1 } },
      dataFile,
      row: true,
    })),
  ],
  DIFFERENCES,
);
