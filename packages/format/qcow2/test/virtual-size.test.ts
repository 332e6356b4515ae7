/** Disks whose size is no multiple of a sector: other programs make them, and QEMU leaves off the last part. */
import { readFile, writeFile } from "node:fs/promises";
import { directChild } from "@blocklayer/block-api";
import { IoVector, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { expect, test } from "vitest";
import { encodeHeader, openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { childOf, createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";

const CLUSTER = 4096;
const SIZES = [1, 511, 512, 1000, CLUSTER + 100, 2 * CLUSTER + 511, 16 * CLUSTER - 1];

/** An image full of data, whose header says another size. */
async function ofSize(size: number): Promise<Uint8Array> {
  const memory = await createInMemory({ size: 16 * CLUSTER, cluster_size: CLUSTER });
  const disk = await openQcow2({ file: directChild(memory) });
  await disk.writev(0, IoVector.of(new Uint8Array(16 * CLUSTER).fill(7)));
  await disk.close();
  const bytes = new Uint8Array(memory.bytes);
  viewOf(bytes).setBigUint64(24, BigInt(size));
  return bytes;
}

function open(bytes: Uint8Array, readOnly = true): Promise<Qcow2Driver> {
  return openQcow2({ file: childOf(bytes), readOnly });
}

test.each(SIZES)(
  "lengthBytes must leave off part of a sector, and reading too: %i",
  async (size) => {
    const disk = await open(await ofSize(size));
    expect(disk.lengthBytes).toBe(size - (size % 512));
    const past = (async (): Promise<void> => disk.readv(disk.lengthBytes, IoVector.allocate(1)))();
    await expect(past).rejects.toMatchObject({ code: "EINVAL" });
    await disk.close();
  },
);

test("encodeHeader() must keep the size as it was stored", async () => {
  const bytes = await ofSize(CLUSTER + 100);
  const header = await readHeader(childOf(bytes));
  expect(header.virtualSize).toBe(CLUSTER + 100);
  const encoded = encodeHeader(header);
  expect(Buffer.compare(encoded, bytes.subarray(0, encoded.length))).toBe(0);
});

test("truncate() must refuse a size that is no multiple of 512, as QEMU does", async () => {
  const disk = await open(await ofSize(CLUSTER + 100), false);
  const grow = (length: number): Promise<void> => (async () => disk.truncate(length))();
  await expect(grow(2 * CLUSTER + 1)).rejects.toThrow("The new size must be a multiple of 512");
  await grow(CLUSTER);
  expect(disk.lengthBytes).toBe(CLUSTER);
  await grow(2 * CLUSTER);
  expect(disk.lengthBytes).toBe(2 * CLUSTER);
  await disk.close();
});

describeWithQemu("a size that is no multiple of 512, and the real qemu-img", () => {
  const scratch = useScratch();

  test.each(SIZES)("must be read, mapped and checked as qemu-img does: %i", async (size) => {
    const bytes = await ofSize(size);
    const filename = scratch("odd.qcow2");
    await writeFile(filename, bytes);
    const disk = await open(bytes);
    const info = JSON.parse((await qemuImg("info", "--output=json", filename)).stdout) as object;
    expect(info).toMatchObject({ "virtual-size": disk.lengthBytes });
    await qemuImg("convert", "-f", "qcow2", "-O", "raw", filename, scratch("odd.raw"));
    const content = new Uint8Array(disk.lengthBytes);
    if (content.length > 0) await disk.readv(0, IoVector.of(content));
    expect(Buffer.compare(content, await readFile(scratch("odd.raw")))).toBe(0);
    const map = JSON.parse((await qemuImg("map", "--output=json", filename)).stdout) as object[];
    if (disk.lengthBytes > 0) {
      const { lengthBytes, hostOffset } = await disk.blockStatus(0, disk.lengthBytes);
      expect(map).toMatchObject([{ start: 0, length: lengthBytes, offset: hostOffset }]);
    }
    const check = JSON.parse((await qemuImg("check", "--output=json", filename)).stdout) as object;
    const { totalClusters, allocatedClusters, imageEndOffset } = await disk.check();
    expect(check).toMatchObject({
      ...(totalClusters === 0 ? {} : { "total-clusters": totalClusters }),
      "allocated-clusters": allocatedClusters,
      "image-end-offset": imageEndOffset,
    });
    await disk.close();
  });

  test("must be written so that qemu-img finds it clean", async () => {
    const bytes = await ofSize(2 * CLUSTER + 511);
    const memory = openMemory({ bytes });
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(CLUSTER, IoVector.of(new Uint8Array(CLUSTER).fill(3)));
    await disk.writeZeroes(0, CLUSTER, { mayUnmap: true });
    await disk.discard(CLUSTER, CLUSTER);
    await disk.close();
    await writeFile(scratch("written.qcow2"), memory.bytes);
    expect(await qemuImg("check", scratch("written.qcow2"))).toMatchObject({ code: 0 });
  });
});

test("an L1 table must be as long as the stored size needs", async () => {
  const coverage = (512 / 8) * 512;
  const { bytes } = await createInMemory({ size: coverage, cluster_size: 512 });
  const image = new Uint8Array(bytes);
  viewOf(image).setBigUint64(24, BigInt(coverage + 1));
  await expect(open(image)).rejects.toThrow("L1 table is too small");
});
