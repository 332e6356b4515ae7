import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { writeFat16 } from "../src/sample/fat16.js";
import { makeSampleDisk, SAMPLE_DISK_BYTES } from "../src/sample/make-disk.js";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Reads a file back by walking directory and FAT, as any system would. */
function readBack(partition: Uint8Array, name: string): Uint8Array | undefined {
  const view = new DataView(partition.buffer, partition.byteOffset, partition.length);
  const sector = view.getUint16(11, true);
  const cluster = view.getUint8(13) * sector;
  const fatStart = view.getUint16(14, true) * sector;
  const rootStart = fatStart + view.getUint8(16) * view.getUint16(22, true) * sector;
  const rootEntries = view.getUint16(17, true);
  const dataStart = rootStart + rootEntries * 32;
  const [stem = "", extension = ""] = name.split(".");
  for (let i = 0; i < rootEntries; i++) {
    const at = rootStart + i * 32;
    const label = String.fromCharCode(...partition.subarray(at, at + 11));
    if (label !== stem.padEnd(8) + extension.padEnd(3)) continue;
    const bytes = new Uint8Array(view.getUint32(at + 28, true));
    let link = view.getUint16(at + 26, true);
    for (let done = 0; done < bytes.length; done += cluster) {
      const start = dataStart + (link - 2) * cluster;
      const length = Math.min(cluster, bytes.length - done);
      bytes.set(partition.subarray(start, start + length), done);
      link = view.getUint16(fatStart + link * 2, true);
    }
    expect(bytes.length === 0 || link === 0xffff).toBe(true);
    return bytes;
  }
  return undefined;
}

test("writeFat16() must let a reader find every file", () => {
  const partition = new Uint8Array(16 * 1024 * 1024);
  const files = [0, 1, 2048, 2049, 100_000].map((length, index) => ({
    name: `FILE${index}.BIN`,
    bytes: Uint8Array.from({ length }, (_, i) => (i * 7 + index) & 0xff),
  }));
  expect(writeFat16(partition, files)).toBe(files.length);
  for (const file of files) expect(readBack(partition, file.name)).toEqual(file.bytes);
});

test("makeSampleDisk() must give the same disk twice, with a partition and many files", () => {
  const { disk, fileCount } = makeSampleDisk(join(root, "packages/base"));
  expect(disk.length).toBe(SAMPLE_DISK_BYTES);
  expect([disk[510], disk[511], disk[450]]).toEqual([0x55, 0xaa, 0x0e]);
  expect(fileCount).toBeGreaterThan(20);
  const again = makeSampleDisk(join(root, "packages/base"));
  expect(Buffer.compare(again.disk, disk)).toBe(0);
});

const fsck = ["/sbin/fsck.fat", "/usr/sbin/fsck.fat"].find((path) => existsSync(path));

test.runIf(fsck)("fsck.fat must find nothing wrong with the sample's file system", () => {
  const folder = mkdtempSync(join(tmpdir(), "blocklayer-"));
  try {
    const { disk } = makeSampleDisk(join(root, "packages/base"));
    const path = join(folder, "fat.img");
    writeFileSync(path, disk.subarray(2048 * 512));
    const output = execFileSync(fsck ?? "", ["-n", path], { encoding: "utf8" });
    expect(output).toMatch(/files, \d+\/\d+ clusters/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("npm start's program must leave three files, and the disk as it was", () => {
  const output = execFileSync(process.execPath, [join(root, "examples/dist/sample-disk.js")], {
    encoding: "utf8",
    cwd: root,
  });
  expect(output).toContain("identical, bit for bit");
  expect(output).not.toContain("\r"); // no progress bar where there is no terminal
  const folder = join(root, ".sample");
  expect(readdirSync(folder).sort()).toEqual(["back.raw", "sample.qcow2", "sample.raw"]);
  const [before, after] = [
    readFileSync(join(folder, "sample.raw")),
    readFileSync(join(folder, "back.raw")),
  ];
  expect(before.length).toBe(SAMPLE_DISK_BYTES);
  expect(Buffer.compare(before, after)).toBe(0);
});
