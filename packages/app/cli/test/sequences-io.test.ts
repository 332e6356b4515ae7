/**
 * The two sequences that go wrong in QEMU 7.2, from the command line: a request parked in the file while its
 * clusters change hands [D3], and a compressed write behind one that was replaced [D5].
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { blk, type Transcript } from "./support/fake-terminal.js";
import { hasQemu, tool } from "./support/qemu.js";

const SHAPES = ["4k", "64k"].flatMap((clusterSize) =>
  [1, 16].flatMap((refcountBits) =>
    ["off", "on"].map((cache) => ({ clusterSize, refcountBits, cache })),
  ),
);

const home = process.cwd();
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "blocklayer-sequences-"));
  process.chdir(folder);
});

afterAll(() => {
  process.chdir(home);
  rmSync(folder, { recursive: true, force: true });
});

/** What D5 writes and reads, in clusters. */
function d5(clusterSize: string): readonly string[] {
  const unit = Number.parseInt(clusterSize, 10);
  return [
    `write -q -c -P 1 0 ${unit}k`,
    `write -q -P 2 0 ${unit}k`,
    `write -q -P 3 ${unit}k ${unit}k`,
    `write -q -c -P 4 ${2 * unit}k ${unit}k`,
    `read -q -P 3 ${unit}k ${unit}k`,
    `read -q -P 2 0 ${unit}k`,
    `read -q -P 4 ${2 * unit}k ${unit}k`,
  ];
}

async function create(clusterSize: string, refcountBits: number): Promise<void> {
  const options = `cluster_size=${clusterSize},refcount_bits=${refcountBits}`;
  const made = await blk(["create", "-q", "-f", "qcow2", "-o", options, "disk.qcow2", "1M"]);
  expect(made).toEqual({ status: 0, stdout: "", stderr: "" });
}

async function io(
  image: string,
  commands: readonly string[],
  cache = "writeback",
): Promise<Transcript> {
  const words = commands.flatMap((command) => ["-c", command]);
  return await blk(["io", "-t", cache, "--image-opts", ...words, image]);
}

async function expectClean(): Promise<void> {
  expect((await blk(["check", "-q", "disk.qcow2"])).status).toBe(0);
  if (hasQemu) expect(tool("qemu-img", ["check", "-q", "disk.qcow2"]).status).toBe(0);
}

const SILENCE = { status: 0, stdout: "", stderr: "" };
const PARKED = {
  status: 0,
  stdout: "blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\n",
  stderr: "",
};

describe.each(SHAPES)("$clusterSize, $refcountBits bits, cache $cache", (shape) => {
  const image =
    `driver=qcow2,compressed-write-cache=${shape.cache},` +
    "file.driver=blkdebug,file.image.driver=file,file.image.filename=disk.qcow2";

  test.each([
    ["rewrite", ["break write_aio A", "aio_write -q -P 5 0 64k"]],
    ["read", ["break read_aio A", "aio_read -q -P 3 0 64k"]],
  ])("a parked %s must not meet the next owner of its clusters", async (kind, parking) => {
    await create(shape.clusterSize, shape.refcountBits);
    const done = await io(image, [
      "write -q -P 3 0 128k",
      ...parking,
      "wait_break A",
      "discard -q 0 128k",
      // The clusters are free on disk, too, before the next owner comes.
      "flush",
      "write -q -P 4 512k 128k",
      "resume A",
      "aio_flush",
      "flush",
      "read -q -P 4 512k 128k",
      "read -q -P 0 64k 64k",
      ...(kind === "read" ? ["read -q -P 0 0 64k"] : []),
    ]);
    expect(done).toEqual(PARKED);
    const zero = await io(image, ["read -q -P 0 0 64k"]);
    if (zero.status !== 0) expect(await io(image, ["read -q -P 5 0 64k"])).toEqual(SILENCE);
    await expectClean();
  });

  test("what replaced a compressed cluster must not be appended to", async () => {
    for (const cache of ["writeback", "writethrough"]) {
      await create(shape.clusterSize, shape.refcountBits);
      expect(await io(image, d5(shape.clusterSize), cache)).toEqual(SILENCE);
      await expectClean();
    }
  });
});

const isSeven = hasQemu && tool("qemu-io", ["--version"]).stdout.includes("version 7.2.");

test.runIf(isSeven).each(["4k", "64k"])(
  "qemu-io 7.2 must lose data on that script with clusters of %s: what the rule was made for",
  (clusterSize) => {
    const options = `cluster_size=${clusterSize}`;
    tool("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options, "theirs.qcow2", "1M"]);
    const commands = d5(clusterSize).flatMap((command) => ["-c", command]);
    const { status, stdout } = tool("qemu-io", [...commands, "theirs.qcow2"]);
    const bytes = Number.parseInt(clusterSize, 10) * 1024;
    const lost = `Pattern verification failed at offset ${bytes}, ${bytes} bytes\n`;
    expect([status, stdout]).toEqual([1, lost]);
    expect(tool("qemu-img", ["check", "theirs.qcow2"]).status).toBe(2);
  },
);

test.runIf(isSeven)(
  "qemu-io 7.2 must let a parked rewrite hit the next owner of its clusters: what the rule was made for",
  () => {
    tool("qemu-img", ["create", "-q", "-f", "qcow2", "theirs.qcow2", "1M"]);
    const commands = [
      "write -q -P 3 0 128k",
      "break write_aio A",
      "aio_write -q -P 5 0 64k",
      "wait_break A",
      "discard -q 0 128k",
      "write -q -P 4 512k 128k",
      "resume A",
      "aio_flush",
      "read -q -P 4 512k 128k",
    ];
    const words = commands.flatMap((command) => ["-c", command]);
    const { status, stdout } = tool("qemu-io", [...words, "blkdebug::theirs.qcow2"]);
    expect([status, stdout]).toEqual([
      1,
      `${PARKED.stdout}Pattern verification failed at offset 524288, 131072 bytes\n`,
    ]);
  },
);
