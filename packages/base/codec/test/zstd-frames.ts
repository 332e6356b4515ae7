/** zstd frames made by hand, with every combination of header fields, right and wrong. */

export const FRAME_MAGIC: readonly number[] = [0x28, 0xb5, 0x2f, 0xfd];

/** A block of the given type: 0 raw, 1 one byte repeated, 2 compressed, 3 reserved. */
export function block(type: number, size: number, body: Uint8Array, isLast = true): Uint8Array {
  const header = (size << 3) | (type << 1) | Number(isLast);
  return bytesOf([header & 255, (header >> 8) & 255, header >> 16], body);
}

export function rawBlock(bytes: Uint8Array, isLast = true): Uint8Array {
  return block(0, bytes.length, bytes, isLast);
}

export function rleBlock(byte: number, count: number, isLast = true): Uint8Array {
  return block(1, count, Uint8Array.of(byte), isLast);
}

export function skippable(body: Uint8Array, variant = 0): Uint8Array {
  return bytesOf([0x50 | variant, 0x2a, 0x4d, 0x18], littleEndian(body.length, 4), body);
}

/** What a frame's header says; what is left out is left out there. */
export interface FrameFields {
  /** Binary logarithm; a frame without one is a single segment. */
  readonly windowLog?: number;
  readonly windowEighths?: number;
  readonly content?: bigint | number;
  /** Bytes of the content's length: 1 (single segments only), 2, 4 or 8. */
  readonly contentField?: number;
  readonly dictionary?: { readonly id: number; readonly field: 1 | 2 | 4 };
  readonly checksum?: Uint8Array;
  /** The descriptor says that there is a checksum. */
  readonly hasChecksum?: boolean;
  /** Bits to set besides. */
  readonly bits?: number;
}

export function frame(blocks: readonly Uint8Array[], fields: FrameFields): Uint8Array {
  const { windowLog, content, dictionary, checksum = new Uint8Array(0) } = fields;
  const contentField = content === undefined ? 0 : (fields.contentField ?? 8);
  const flags = { 0: 0, 1: 0, 2: 1, 4: 2, 8: 3 }[contentField] as number;
  const dictionaryFlag = dictionary === undefined ? 0 : { 1: 1, 2: 2, 4: 3 }[dictionary.field];
  const hasChecksum = fields.hasChecksum ?? checksum.length > 0;
  const single = windowLog === undefined ? 0x20 : 0;
  const descriptor =
    (flags << 6) | single | (hasChecksum ? 4 : 0) | dictionaryFlag | (fields.bits ?? 0);
  const window =
    windowLog === undefined ? [] : [((windowLog - 10) << 3) | (fields.windowEighths ?? 0)];
  const base = contentField === 2 ? 256n : 0n;
  return bytesOf(
    FRAME_MAGIC,
    [descriptor],
    window,
    dictionary === undefined ? [] : littleEndian(dictionary.id, dictionary.field),
    littleEndian(BigInt(content ?? 0) - base, contentField),
    ...blocks,
    checksum,
  );
}

export function littleEndian(value: bigint | number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => Number((BigInt(value) >> BigInt(8 * i)) & 255n));
}

export function bytesOf(...parts: readonly (readonly number[] | Uint8Array)[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** One cluster's data, and what QEMU 7.2 makes of it: the cluster, or an error. */
export interface ClusterCase {
  readonly name: string;
  readonly payload: Uint8Array;
  readonly cluster: Uint8Array | undefined;
}

const SIZE = 65536;
const HALF = SIZE / 2;

/** What a cluster of 64 KiB may look like. The interop test shows each of these to the real one. */
export function clusterCases(): ClusterCase[] {
  const a = rleBlock(0x41, SIZE);
  const all = new Uint8Array(SIZE).fill(0x41);
  const halves = new Uint8Array(SIZE).fill(0x41, 0, HALF).fill(0x42, HALF);
  const stated = { content: SIZE, contentField: 2 } as const;
  const half = { content: HALF, contentField: 2 } as const;
  const whole = frame([a], stated);
  const [first, second] = [
    frame([rleBlock(0x41, HALF)], half),
    frame([rleBlock(0x42, HALF)], half),
  ];
  const [open1, open2] = [
    frame([rleBlock(0x41, HALF)], { windowLog: 16 }),
    frame([rleBlock(0x42, HALF)], { windowLog: 16 }),
  ];
  const skip = skippable(Uint8Array.of(1, 2, 3, 4));
  const empty = new Uint8Array(0);
  const good: [string, Uint8Array, Uint8Array?][] = [
    ["one frame, its length stated", whole],
    ["one frame, its length not stated", frame([a], { windowLog: 16 })],
    ["a window of 128 MiB", frame([a], { windowLog: 27 })],
    ["a window of 2 GiB, its length stated", frame([a], { ...stated, windowLog: 31 })],
    ["a window with eighths", frame([a], { windowLog: 16, windowEighths: 7 })],
    ["bytes behind the frame", bytesOf(whole, new Uint8Array(300).fill(0xee))],
    ["two frames", bytesOf(first, second), halves],
    ["two frames, their lengths not stated", bytesOf(open1, open2), halves],
    ["a skippable frame in front", bytesOf(skip, whole)],
    ["an empty skippable frame in front", bytesOf(skippable(empty, 15), whole)],
    ["a skippable frame between", bytesOf(first, skip, second), halves],
    [
      "an empty frame in front",
      bytesOf(frame([rawBlock(empty)], { content: 0, contentField: 1 }), whole),
    ],
    ["a dictionary of number 0", frame([a], { ...stated, dictionary: { id: 0, field: 1 } })],
    ["the unused bit of the header", frame([a], { ...stated, bits: 0x10 })],
    ["a last block that is empty", frame([rleBlock(0x41, SIZE, false), rawBlock(empty)], stated)],
    [
      "many empty blocks",
      frame([...Array<Uint8Array>(3000).fill(rawBlock(empty, false)), a], stated),
    ],
    ["a repeated byte zero times", frame([rleBlock(0x42, 0, false), a], stated)],
    ["one raw block", frame([rawBlock(halves)], stated), halves],
    ["a length of eight bytes", frame([a], { content: SIZE })],
  ];
  const bad: [string, Uint8Array][] = [
    ["a window of 256 MiB", frame([a], { windowLog: 28 })],
    ["a window of 2 TiB", frame([a], { windowLog: 41 })],
    ["a block longer than the window", frame([a], { windowLog: 10 })],
    ["half a cluster", first],
    ["half a cluster and padding", bytesOf(first, new Uint8Array(300))],
    ["half a cluster and a whole one", bytesOf(first, whole)],
    [
      "two clusters, stated",
      frame([rleBlock(0x41, SIZE, false), a], { content: 2 * SIZE, contentField: 4 }),
    ],
    ["two clusters, not stated", frame([rleBlock(0x41, SIZE, false), a], { windowLog: 17 })],
    [
      "a byte too much",
      frame([rleBlock(0x41, SIZE, false), rawBlock(Uint8Array.of(1))], { windowLog: 17 }),
    ],
    ["less than is stated", frame([a], { content: 2 * SIZE, contentField: 4 })],
    ["more than is stated", frame([a], half)],
    ["2^63 bytes stated", frame([a], { content: 1n << 63n })],
    ["2^63 bytes stated, with a window", frame([a], { content: 1n << 63n, windowLog: 16 })],
    ["a wrong checksum", frame([a], { ...stated, checksum: Uint8Array.of(1, 2, 3, 4) })],
    ["a dictionary", frame([a], { ...stated, dictionary: { id: 5, field: 1 } })],
    ["the reserved bit of the header", frame([a], { ...stated, bits: 8 })],
    ["a block of the reserved type", frame([block(3, SIZE, Uint8Array.of(1))], stated)],
    ["no last block", frame([rleBlock(0x41, SIZE, false)], stated)],
    ["no last block, not stated", frame([rleBlock(0x41, SIZE, false)], { windowLog: 17 })],
    ["the magic of zstd 0.7", bytesOf([0x27], whole.subarray(1))],
    ["no magic", whole.subarray(4)],
    ["zeroes", new Uint8Array(512)],
    [
      "a skippable frame that goes too far",
      bytesOf([0x50, 0x2a, 0x4d, 0x18], littleEndian(0xffff_ffff, 4), whole),
    ],
  ];
  return [
    ...good.map(([name, payload, cluster = all]) => ({ name, payload, cluster })),
    ...bad.map(([name, payload]) => ({ name, payload, cluster: undefined })),
  ];
}
