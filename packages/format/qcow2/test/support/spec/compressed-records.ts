/** L2 entries of compressed clusters, and what they lead to. */
import { deflateRawSync } from "node:zlib";
import { bit, bits, type SpecRecord } from "./record.js";
import {
  AT,
  COMPRESSED,
  COPIED,
  sound,
  type SpecImage,
  type SpecImageOptions,
} from "./spec-image.js";

/** A deflate stream of a cluster full of 5; QEMU's window has 4 KiB. */
function deflated(clusterSize: number): Uint8Array {
  return new Uint8Array(deflateRawSync(new Uint8Array(clusterSize).fill(5), { windowBits: 12 }));
}

/** A zstd frame by hand: its content's size, then one block that repeats the byte 5. */
function zstdFrame(lengthBytes: number): Uint8Array {
  const frame = new Uint8Array(13);
  const view = new DataView(frame.buffer);
  view.setUint32(0, 0xfd2f_b528, true);
  // The size has four bytes, and is the window's too.
  view.setUint8(4, 0b1010_0000);
  view.setUint32(5, lengthBytes, true);
  const header = lengthBytes * 8 + 0b011;
  view.setUint16(9, header % 65_536, true);
  view.setUint8(11, Math.floor(header / 65_536));
  view.setUint8(12, 5);
  return frame;
}

interface Payload {
  readonly options?: SpecImageOptions;
  /** Where in the free cluster 9 it begins. */
  readonly at?: number;
  readonly furtherSectors?: number;
  readonly bytes?: (clusterSize: number) => Uint8Array;
  readonly more?: bigint;
}

/** An image whose guest cluster 4 is compressed. */
function compressed(payload: Payload = {}): SpecImage {
  const { options, at = 0, furtherSectors = 0, bytes = deflated, more = 0n } = payload;
  const image = sound(options);
  const offset = image.offset(AT.free) + at;
  image.raw(offset, bytes(image.clusterSize)).refcount(AT.free, 1);
  return image.l2(4, image.compressed(offset, furtherSectors) ^ more);
}

const FIVE = { guest: "12345..........." } as const;
const BAD = { guest: "1234!..........." } as const;

const DESCRIPTORS: readonly SpecRecord[] = [
  ...[9, 10, 12, 14, 16].map((clusterBits) => ({
    line: `compressed descriptor of clusters of 2^${clusterBits}: x is ${70 - clusterBits}`,
    build: () => compressed({ options: { clusterBits } }),
    expected: FIVE,
  })),
  {
    line: "compressed descriptor of clusters of 2^21: x is 49",
    build: () => compressed({ options: { clusterBits: 21, freeClusters: 2 }, furtherSectors: 7 }),
    expected: FIVE,
  },
  {
    line: "compressed descriptor in version 2",
    build: () => compressed({ options: { version: 2 } }),
    expected: FIVE,
  },
  ...[1, 7, 100, 511].map((at) => ({
    line: `compressed descriptor: the offset is any byte: ${at}`,
    build: () => compressed({ at, furtherSectors: at > 490 ? 1 : 0 }),
    expected: FIVE,
  })),
  ...bits(1, 7).map((furtherSectors) => ({
    line: `compressed descriptor: more sectors than are needed: ${furtherSectors}`,
    build: () => compressed({ furtherSectors }),
    expected: FIVE,
  })),
  {
    line: "compressed descriptor: the data may go on in the next cluster",
    build: () => compressed({ at: 4090, furtherSectors: 1 }).refcount(AT.free + 1, 1),
    expected: FIVE,
  },
  {
    line: "compressed descriptor: the next cluster counts as well",
    build: () => compressed({ at: 4090, furtherSectors: 1 }),
    expected: { ...FIVE, check: { corruptions: 1 }, leftByLeaks: { checkErrors: 1 } },
  },
  {
    line: "compressed descriptor: the sectors that are named must hold all of the data",
    build: () => compressed({ at: 505 }),
    expected: BAD,
  },
  {
    line: "compressed descriptor: two clusters may share a sector",
    build: () => {
      const image = compressed().refcount(AT.free, 2);
      image.raw(image.offset(AT.free) + 100, deflated(4096));
      return image.l2(5, image.compressed(image.offset(AT.free) + 100, 0));
    },
    expected: { guest: "123455.........." },
  },
  {
    line: "compressed descriptor: bit 63 is 0",
    build: () => compressed({ more: COPIED }),
    expected: { ...FIVE, check: { corruptions: 1 } },
  },
  {
    line: "compressed descriptor: a refcount of 2 changes nothing",
    build: () => compressed().refcount(AT.free, 2),
    expected: { ...FIVE, check: { leaks: 1 } },
  },
  ...bits(56, 57).map((n) => ({
    line: `compressed descriptor: offset bits beyond 55 are 0: bit ${n}`,
    build: () => compressed({ more: bit(n) }),
    expected: { ...BAD, check: { corruptions: 1, leaks: 1 } },
  })),
  ...bits(56, 60).map((n) => ({
    line: `compressed descriptor of clusters of 512 bytes: offset bits beyond 55 are 0: bit ${n}`,
    build: () => compressed({ options: { clusterBits: 9 }, more: bit(n) }),
    expected: { ...BAD, check: { corruptions: 1, leaks: 1 } },
  })),
  ...bits(16, 55).map((n) => ({
    line: `compressed descriptor: data behind the end of the file: bit ${n}`,
    build: () => compressed({ more: bit(n) }),
    expected: { ...BAD, check: { corruptions: 1, leaks: 1 } },
    row: true,
  })),
  {
    line: "compressed descriptor of 0: the header is no data",
    build: () => sound().l2(4, COMPRESSED),
    expected: { ...BAD, check: { corruptions: 1 } },
  },
];

const DATA: readonly SpecRecord[] = [
  {
    line: "compressed data: what is no deflate stream cannot be read",
    build: () => compressed({ bytes: () => new Uint8Array(512).fill(0xff), furtherSectors: 7 }),
    expected: BAD,
  },
  {
    line: "compressed data: less than a cluster comes out",
    build: () => compressed({ bytes: (size) => deflated(size - 1) }),
    expected: BAD,
  },
  {
    line: "compressed data: reading ends when a cluster has come out",
    build: () => compressed({ bytes: (size) => deflated(size + 1) }),
    expected: FIVE,
  },
  {
    line: "compressed data: a stored block of deflate",
    build: () =>
      compressed({
        bytes: () => new Uint8Array([1, 0, 16, 255, 239, ...new Uint8Array(4096).fill(5)]),
        furtherSectors: 8,
      }).refcount(AT.free + 1, 1),
    expected: FIVE,
  },
  {
    line: "compressed data of type 1 is zstd",
    build: () => compressed({ bytes: zstdFrame }).u64(72, 8).u8(104, 1),
    expected: FIVE,
  },
  {
    line: "compressed data of type 1 is not deflate",
    build: () => compressed().u64(72, 8).u8(104, 1),
    expected: BAD,
  },
  {
    line: "compressed data of type 0 is not zstd",
    build: () => compressed({ bytes: zstdFrame }),
    expected: BAD,
  },
  {
    line: "compressed data of type 1: less than a cluster comes out",
    build: () =>
      compressed({ bytes: (size) => zstdFrame(size - 1) })
        .u64(72, 8)
        .u8(104, 1),
    expected: BAD,
  },
];

export const COMPRESSED_RECORDS: readonly SpecRecord[] = [...DESCRIPTORS, ...DATA];
