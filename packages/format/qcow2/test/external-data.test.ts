import { readFile, writeFile } from "node:fs/promises";
import { type BlockChild, directChild, parseOptions } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { driverSuite, type DriverTarget } from "@blocklayer/conformance";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { Random } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { checkQcow2, createOptions, createQcow2, openQcow2, readHeader } from "../src/index.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { runCommand, runQemuIo } from "./support/replay.js";

const CLUSTER = 4096;
/** A cluster that the memory store can discard. */
const LARGE = 65536;

/** An image and its data file in memory. */
interface Pair {
  readonly image: MemoryDriver;
  readonly data: MemoryDriver;
  readonly file: BlockChild;
  readonly dataFile: BlockChild;
}

async function createPair(given: Readonly<Record<string, unknown>>): Promise<Pair> {
  const image = openMemory();
  const data = openMemory();
  const file = directChild(image);
  const dataFile = directChild(data);
  const options = parseOptions(
    createOptions,
    { cluster_size: CLUSTER, data_file: "disk.data", ...given },
    "qcow2",
  );
  await createQcow2({ file, dataFile, options });
  return { image, data, file, dataFile };
}

async function expectClean(file: BlockChild): Promise<void> {
  const result = await checkQcow2(file, await readHeader(file));
  expect(result.findings.map(({ message }) => message)).toEqual([]);
}

/** Subclusters of 512 bytes. */
const EXTENDED = { cluster_size: 16_384, extended_l2: "on" };

for (const [raw, shape] of [
  [false, {}],
  [true, {}],
  [false, EXTENDED],
  [true, EXTENDED],
] as const) {
  driverSuite({
    name: `qcow2 with an external data file, raw ${String(raw)}, ${JSON.stringify(shape)}`,
    modelRuns: 5,
    capabilities: { write: true, writeZeroes: true, discard: true, truncate: true, backing: true },
    async open(lengthBytes): Promise<DriverTarget> {
      const { file, dataFile } = await createPair({
        size: lengthBytes,
        data_file_raw: raw,
        ...shape,
      });
      return {
        driver: await openQcow2({ file, dataFile }),
        reopen: () => openQcow2({ file, dataFile }),
      };
    },
  });
}

describe("openQcow2() of an image with an external data file", () => {
  test("must say that the data file is missing, and refuse one that no image asks for", async () => {
    const { file, dataFile } = await createPair({ size: 8 * CLUSTER });
    await expect(openQcow2({ file })).rejects.toMatchObject({
      code: "EINVAL",
      message: "'data-file' is required for this image",
    });
    const plain = openMemory();
    const options = parseOptions(createOptions, { size: CLUSTER }, "qcow2");
    await createQcow2({ file: directChild(plain), options });
    await expect(openQcow2({ file: directChild(plain), dataFile })).rejects.toMatchObject({
      code: "EINVAL",
    });
  });

  test("must have no cache of compressed writes, and not say that there is one [S13]", async () => {
    const { file, dataFile } = await createPair({ size: 8 * CLUSTER });
    const limits = { ...file.limits, requestAlignment: 512 };
    const aligned = Object.create(file, { limits: { get: () => limits } }) as BlockChild;
    for (const mode of ["auto", "on"]) {
      const options = { "compressed-write-cache": mode };
      const disk = await openQcow2({ file: aligned, dataFile, options });
      expect(disk.statistics()["compressedCache"]).toBe(false);
      expect((await disk.formatInfo()).data).not.toHaveProperty("compressed-write-cache");
      await disk.close();
    }
  });

  test("must refuse compressed writes, and change nothing by them", async () => {
    const { file, dataFile, data } = await createPair({ size: 8 * CLUSTER });
    const disk = await openQcow2({ file, dataFile });
    expect(disk.capabilities.compressedWrite).toBe(false);
    const bytes = IoVector.of(new Uint8Array(CLUSTER).fill(1));
    expect(() => disk.writev(0, bytes, { compressed: true })).toThrow(BlockError);
    await disk.close();
    expect(data.bytes.every((byte) => byte === 0)).toBe(true);
  });

  test("must refuse an entry that names another place than the guest's, or compressed data", async () => {
    for (const [name, high, low] of [
      ["external data lies at its guest offset", 0x80000000, 3 * CLUSTER],
      ["compressed, which external data cannot be", 0x40000000, CLUSTER],
    ] as const) {
      const { file, dataFile, image, data } = await createPair({ size: 8 * CLUSTER });
      const disk = await openQcow2({ file, dataFile });
      await disk.writev(CLUSTER, IoVector.of(new Uint8Array(CLUSTER).fill(1)));
      await disk.close();
      const bytes = image.bytes;
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      const l1Offset = Number(view.getBigUint64(40));
      const l2Offset = Number(view.getBigUint64(l1Offset) & 0xfffffffffffe00n);
      const entry = new Uint8Array(8);
      new DataView(entry.buffer).setUint32(0, high);
      new DataView(entry.buffer).setUint32(4, low);
      await image.writev(l2Offset + 8, IoVector.of(entry));
      const again = await openQcow2({ file, dataFile, readOnly: true });
      await expect(
        (async () => again.readv(CLUSTER, IoVector.allocate(512)))(),
      ).rejects.toMatchObject({
        name: "CorruptImageError",
        message: expect.stringContaining(name),
      });
      await again.close();
      // A writer reads the table by itself, and must not put its data where the entry says.
      const before = data.bytes;
      const writer = await openQcow2({ file, dataFile });
      await expect(
        (async () => writer.writev(CLUSTER, IoVector.of(new Uint8Array(CLUSTER).fill(2))))(),
      ).rejects.toMatchObject({ message: expect.stringContaining(name) });
      await writer.close();
      expect(Buffer.compare(data.bytes, before)).toBe(0);
    }
  });

  test("flush must make data durable before the table that shows it [C5]", async () => {
    const { image, data } = await createPair({ size: 64 * CLUSTER });
    const calls: string[] = [];
    const watched = (name: string, store: MemoryDriver): BlockChild => {
      const inner = directChild(store);
      const child = Object.create(inner) as BlockChild & { flush: () => void };
      child.flush = () => void calls.push(`${name} flush`);
      child.writev = (offset, source, options) => {
        calls.push(`${name} write`);
        return inner.writev(offset, source, options);
      };
      return child;
    };
    const disk = await openQcow2({
      file: watched("image", image),
      dataFile: watched("data", data),
    });
    await disk.writev(8 * CLUSTER, IoVector.of(new Uint8Array(CLUSTER).fill(1)));
    calls.length = 0;
    await disk.writev(9 * CLUSTER, IoVector.of(new Uint8Array(CLUSTER).fill(2)));
    await disk.flushToOs();
    const table = calls.lastIndexOf("image write");
    expect(calls.indexOf("data write")).toBeLessThan(calls.indexOf("data flush"));
    expect(calls.indexOf("data flush")).toBeLessThan(table);
    await disk.close();
  });
});

describe("discard() with an external data file", () => {
  test("must reach the file after the flush, and never what was written again meanwhile [D2]", async () => {
    const { file, dataFile, data } = await createPair({
      size: 16 * LARGE,
      cluster_size: LARGE,
    });
    const disk = await openQcow2({ file, dataFile });
    const full = (value: number): IoVector => IoVector.of(new Uint8Array(4 * LARGE).fill(value));
    await disk.writev(0, full(7));
    await disk.flushToOs();
    await disk.discard(0, 4 * LARGE);
    expect(data.bytes[0]).toBe(7);
    await disk.writev(LARGE, IoVector.of(new Uint8Array(LARGE).fill(8)));
    await disk.flushToOs();
    expect([0, 1, 2, 3].map((i) => data.bytes[i * LARGE])).toEqual([0, 8, 0, 0]);
    const target = new Uint8Array(4 * LARGE);
    await disk.readv(0, IoVector.of(target));
    expect([0, 1, 2, 3].map((i) => target[i * LARGE])).toEqual([0, 8, 0, 0]);
    await disk.close();
    await expectClean(file);
  });
});

/** A data file that is a device: of one length, with old bytes all over it. */
async function onDevice(
  lengthBytes: number,
  given: Readonly<Record<string, unknown>>,
): Promise<{ image: MemoryDriver; device: MemoryDriver; file: BlockChild; dataFile: BlockChild }> {
  const image = openMemory();
  const device = openMemory({ bytes: new Uint8Array(lengthBytes).fill(0xdd) });
  const inner = directChild(device);
  const dataFile = Object.create(inner, {
    capabilities: { value: { ...inner.capabilities, truncate: false } },
    writev: {
      value: (offset: number, source: IoVector) => {
        const isInside = offset + source.lengthBytes <= lengthBytes;
        if (!isInside) throw new BlockError("EIO", "the device is not that long");
        return inner.writev(offset, source);
      },
    },
    // What a device reads as where it was discarded is its own affair.
    discard: {
      value: (offset: number, length: number) =>
        inner.writev(offset, IoVector.of(new Uint8Array(length).fill(0xdd))),
    },
  }) as BlockChild;
  const options = parseOptions(
    createOptions,
    { cluster_size: CLUSTER, data_file: "device", ...given },
    "qcow2",
  );
  await createQcow2({ file: directChild(image), dataFile, options });
  return { image, device, file: directChild(image), dataFile };
}

describe("a data file of one length", () => {
  test("must take writes to a last cluster that the end of the disk cuts", async () => {
    const size = 2 * CLUSTER + 1024;
    const { file, dataFile } = await onDevice(size, { size });
    const disk = await openQcow2({ file, dataFile });
    await disk.writev(2 * CLUSTER + 512, IoVector.of(new Uint8Array(100).fill(7)));
    const tail = new Uint8Array(1024);
    await disk.readv(2 * CLUSTER, IoVector.of(tail));
    expect(tail).toEqual(new Uint8Array(1024).fill(7, 512, 612));
    await disk.close();
    await expectClean(file);
  });

  test("must show nothing of what it held when the disk grows over it", async () => {
    for (const raw of [false, true]) {
      const size = 2 * CLUSTER + 1024;
      const { file, dataFile, device } = await onDevice(16 * CLUSTER, {
        size,
        ...(raw ? { data_file_raw: true } : {}),
      });
      const disk = await openQcow2({ file, dataFile });
      await disk.writev(0, IoVector.of(new Uint8Array(size).fill(7)));
      expect(device.bytes.subarray(size).every((byte) => byte === 0xdd)).toBe(true);
      await disk.truncate(9 * CLUSTER);
      const content = new Uint8Array(9 * CLUSTER);
      await disk.readv(0, IoVector.of(content));
      expect({ raw, content }).toEqual({
        raw,
        content: new Uint8Array(9 * CLUSTER).fill(7, 0, size),
      });
      if (raw) expect(Buffer.compare(device.bytes.subarray(0, 9 * CLUSTER), content)).toBe(0);
      expect(device.bytes.subarray(9 * CLUSTER).every((byte) => byte === 0xdd)).toBe(true);
      await disk.close();
      await expectClean(file);
    }
  });

  test("must read as zeroes where a raw one was discarded, whatever the device does", async () => {
    const { file, dataFile, device } = await onDevice(8 * LARGE, {
      size: 8 * LARGE,
      cluster_size: LARGE,
      data_file_raw: true,
    });
    const disk = await openQcow2({ file, dataFile });
    await disk.writev(0, IoVector.of(new Uint8Array(4 * LARGE).fill(7)));
    await disk.discard(LARGE, LARGE);
    await disk.writeZeroes(2 * LARGE, LARGE, { mayUnmap: true });
    await disk.close();
    const shown = device.bytes.subarray(0, 4 * LARGE);
    const expected = new Uint8Array(4 * LARGE).fill(7).fill(0, LARGE, 3 * LARGE);
    expect(Buffer.compare(shown, expected)).toBe(0);
  });
});

describe("discard() beside a reader of external data", () => {
  test("must wait for who looked the cluster up before it was dropped [D1]", async () => {
    const { file, data } = await createPair({ size: 16 * LARGE, cluster_size: LARGE });
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const inner = directChild(data);
    let isHeld = false;
    const dataFile = Object.create(inner, {
      readv: {
        value: (offset: number, target: IoVector) =>
          isHeld ? gate.then(() => inner.readv(offset, target)) : inner.readv(offset, target),
      },
    }) as BlockChild;
    const disk = await openQcow2({ file, dataFile });
    await disk.writev(0, IoVector.of(new Uint8Array(LARGE).fill(7)));
    await disk.flushToOs();
    isHeld = true;
    const target = new Uint8Array(LARGE);
    const read = disk.readv(0, IoVector.of(target));
    await disk.discard(0, LARGE);
    await disk.flushToOs();
    expect(data.bytes[0]).toBe(7);
    go();
    await read;
    await disk.flushToOs();
    expect(data.bytes[0]).toBe(0);
    await disk.close();
  });
});

describe("data_file_raw", () => {
  test.each([
    ["clusters", CLUSTER, {}],
    ["subclusters", EXTENDED.cluster_size, EXTENDED],
  ])(
    "must keep both views equal after random work, and through growth: %s",
    async (_, unit, shape) => {
      for (let seed = 1; seed <= 6; seed++) {
        const random = new Random(seed);
        let size = 160 * 1024 + 512 * random.below(8);
        const { file, dataFile, data } = await createPair({ size, data_file_raw: true, ...shape });
        let model = new Uint8Array(size);
        for (let round = 0; round < 4; round++) {
          const disk = await openQcow2({ file, dataFile });
          for (let i = 0; i < 50; i++) {
            const offset = random.below(size);
            const length = 1 + random.below(Math.min(5 * CLUSTER, size - offset));
            const kind = random.below(4);
            if (kind < 2) {
              const value = 1 + random.below(255);
              await disk.writev(offset, IoVector.of(new Uint8Array(length).fill(value)));
              model.fill(value, offset, offset + length);
            } else if (kind === 2) {
              await disk.writeZeroes(offset, length, { mayUnmap: random.below(2) === 0 });
              model.fill(0, offset, offset + length);
            } else {
              await disk.discard(offset, length);
              const end = offset + length;
              const first = Math.ceil(offset / unit) * unit;
              const last = end === size ? size : Math.floor(end / unit) * unit;
              if (last > first) model.fill(0, first, last);
            }
          }
          const target = new Uint8Array(size);
          await disk.readv(0, IoVector.of(target));
          expect(Buffer.compare(target, model)).toBe(0);
          await disk.flushToOs();
          expect(Buffer.compare(data.bytes, model)).toBe(0);
          const grown = new Uint8Array(size + 512 * (1 + random.below(100)));
          grown.set(model);
          model = grown;
          size = grown.length;
          await disk.truncate(size);
          await disk.close();
          expect(Buffer.compare(data.bytes, model)).toBe(0);
          await expectClean(file);
        }
      }
    },
  );

  test.each([
    ["clusters", {}],
    ["subclusters", EXTENDED],
  ])(
    "must show through the image what is written into the data file alone: %s",
    async (_, shape) => {
      const size = 160 * 1024;
      const { file, dataFile, data } = await createPair({ size, data_file_raw: true, ...shape });
      await data.writev(5 * CLUSTER, IoVector.of(new Uint8Array(CLUSTER).fill(9)));
      const disk = await openQcow2({ file, dataFile });
      const target = new Uint8Array(CLUSTER);
      await disk.readv(5 * CLUSTER, IoVector.of(target));
      expect(target.every((byte) => byte === 9)).toBe(true);
      await disk.close();
    },
  );
});

describeWithQemu("interop with an external data file", () => {
  const scratch = useScratch();

  function commandsOf(random: Random, sizeKiB: number): string[] {
    return Array.from({ length: 30 }, () => {
      const offset = random.below(sizeKiB);
      const length = 1 + random.below(Math.min(300, sizeKiB - offset));
      const range = `${offset}k ${length}k`;
      const whole = `${Math.floor(offset / 64) * 64}k ${Math.ceil(length / 64) * 64}k`;
      const kinds = [
        `write -P ${1 + random.below(255)} ${range}`,
        `write -P ${1 + random.below(255)} ${range}`,
        `write -z ${range}`,
        `write -z -u ${range}`,
        `discard ${whole}`,
        "flush",
      ];
      return kinds[random.below(kinds.length)] as string;
    });
  }

  test.each([
    ...[1, 2, 3, 4, 5, 6].map((seed) => ({ seed, extended: "off" })),
    ...[7, 9, 11].map((seed) => ({ seed, extended: "on" })),
  ])(
    "must leave the map and the data that qemu-io leaves: list $seed, extended_l2=$extended",
    { timeout: 60_000 },
    async ({ seed, extended }) => {
      const random = new Random(seed);
      const raw = seed % 2 === 0 ? "on" : "off";
      const sizeKiB = 4096;
      const twin = scratch(`twin${seed}.qcow2`);
      const twinData = scratch(`twin${seed}.data`);
      const options = `data_file=${twinData},data_file_raw=${raw},extended_l2=${extended}`;
      expect(await qemuImg("create", "-q", "-f", "qcow2", "-o", options, twin, "4M")).toMatchObject(
        {
          code: 0,
        },
      );
      const image = openMemory({ bytes: new Uint8Array(await readFile(twin)) });
      const data = openMemory({ bytes: new Uint8Array(sizeKiB * 1024) });
      const commands = commandsOf(random, sizeKiB - 300);
      await runQemuIo(twin, commands);
      const parts = { file: directChild(image), dataFile: directChild(data) };
      const disk = await openQcow2(parts);
      for (const command of commands) await runCommand(disk, command);
      await disk.close();
      await expectClean(parts.file);
      const theirs = {
        file: directChild(openMemory({ bytes: new Uint8Array(await readFile(twin)) })),
        dataFile: directChild(openMemory({ bytes: new Uint8Array(await readFile(twinData)) })),
      };
      const [ours, peer] = [
        await openQcow2({ ...parts, readOnly: true }),
        await openQcow2({ ...theirs, readOnly: true }),
      ];
      const [ourBytes, peerBytes] = [new Uint8Array(4 * 2 ** 20), new Uint8Array(4 * 2 ** 20)];
      await ours.readv(0, IoVector.of(ourBytes));
      await peer.readv(0, IoVector.of(peerBytes));
      expect(Buffer.compare(ourBytes, peerBytes)).toBe(0);
      for (let at = 0; at < ourBytes.length; ) {
        const left = ourBytes.length - at;
        const status = await ours.blockStatus(at, left);
        expect(status).toEqual(await peer.blockStatus(at, left));
        at += status.lengthBytes;
      }
      await ours.close();
      await peer.close();
    },
  );

  test.each(["plain", "off", "on"])(
    "must leave the L2 table that qemu-io leaves where zeroes come to zeroes, data_file_raw %s",
    async (raw) => {
      const twin = scratch(`zeroes-${raw}.qcow2`);
      const twinData = scratch(`zeroes-${raw}.data`);
      const options = raw === "plain" ? [] : ["-o", `data_file=${twinData},data_file_raw=${raw}`];
      const made = await qemuImg("create", "-q", "-f", "qcow2", ...options, twin, "1M");
      expect(made).toMatchObject({ code: 0 });
      const image = openMemory({ bytes: new Uint8Array(await readFile(twin)) });
      const data = openMemory({ bytes: new Uint8Array(2 ** 20) });
      const commands = [
        "write 0 256k",
        "write -z 0 128k",
        "flush",
        "write -z -u 4k 4k",
        "write -z -u 70k 4k",
        "write -z -u 130k 1k",
        "write -z 192k 64k",
        "write -z 200k 4k",
      ];
      await runQemuIo(twin, commands);
      const file = directChild(image);
      const dataFile = raw === "plain" ? {} : { dataFile: directChild(data) };
      const disk = await openQcow2({ file, ...dataFile });
      for (const command of commands) await runCommand(disk, command);
      await disk.close();
      await expectClean(file);
      // Kinds and places as QEMU reads them, in either file.
      const ours = scratch(`zeroes-${raw}-ours.qcow2`);
      await writeFile(ours, image.bytes);
      const map = async (name: string): Promise<string> =>
        (await qemuImg("map", "--output=json", name)).stdout;
      expect(await map(ours)).toBe(await map(twin));
      const judged = JSON.parse((await qemuImg("check", "--output=json", ours)).stdout);
      const check = await checkQcow2(file, await readHeader(file));
      expect(check.allocatedClusters).toBe(judged["allocated-clusters"]);
      const theirs = directChild(openMemory({ bytes: new Uint8Array(await readFile(twin)) }));
      const peer = await openQcow2({ file: theirs, ...dataFile, readOnly: true });
      const mine = await openQcow2({ file, ...dataFile, readOnly: true });
      for (let at = 0; at < 2 ** 20; at += LARGE) {
        expect(await mine.blockStatus(at, LARGE)).toEqual(await peer.blockStatus(at, LARGE));
      }
      const first = await mine.blockStatus(0, LARGE);
      expect(first).toMatchObject({ zero: true, data: false });
      expect(first).not.toHaveProperty("hostOffset");
      await mine.close();
      await peer.close();
    },
  );
});
