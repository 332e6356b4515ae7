/** The library in a real browser: bundled for it, on images that the real qemu-img makes and judges. */
import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bundlePackage, bundlePage, PORTABLE } from "../src/bundle.mjs";
import { hasPeers, openPage } from "../src/chromium.mjs";

const KIB = 1024;
const SIZE = 1536 * KIB;

/** Text, numbers and zeroes, in clusters of 64 KiB; the last one is what no codec makes shorter. */
function sampleDisk(): Uint8Array {
  const disk = new Uint8Array(SIZE);
  for (let at = 0; at < SIZE; at++) {
    const cluster = at >> 16;
    if (cluster % 4 === 0) disk[at] = "the quick brown fox ".charCodeAt(at % 20);
    else if (cluster % 4 === 1) disk[at] = (at * at) >> 7;
    else if (cluster % 4 === 2) disk[at] = at % 251 === 0 ? cluster : 0;
  }
  let state = 1;
  for (let at = SIZE - 64 * KIB; at < SIZE; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    disk[at] = state >>> 24;
  }
  return disk;
}

describe("a bundle for browsers", () => {
  test.each(PORTABLE)("must need no module that only Node has: %s", async (name) => {
    await expect(bundlePackage(name)).resolves.toBeUndefined();
  });

  test("must fail where a module of Node is needed", async () => {
    await expect(bundlePackage("file")).rejects.toThrow(/node:/);
  });
});

describe.runIf(hasPeers)("in chromium", () => {
  const disk = sampleDisk();
  const sha256 = createHash("sha256").update(disk).digest("hex");
  const files = new Map<string, Uint8Array>();
  let folder = "";
  let opened: Awaited<ReturnType<typeof openPage>>;

  const qemuImg = (...words: readonly string[]): string =>
    execFileSync("qemu-img", words, { cwd: folder, encoding: "utf8" });

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "blocklayer-browser-"));
    writeFileSync(join(folder, "disk.raw"), disk);
    files.set("/disk.raw", disk);
    opened = await openPage(await bundlePage(), join(folder, "profile"), files);
  });
  afterAll(async () => {
    await opened?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test.each(["zlib", "zstd"])("must read what qemu-img compressed: %s", async (type) => {
    const options = `compression_type=${type}`;
    qemuImg("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, "disk.raw", "theirs.qcow2");
    files.set(`/${type}`, readFileSync(join(folder, "theirs.qcow2")));
    const read = await opened.page.evaluate((url) => globalThis.page.hashOfImage(url), `/${type}`);
    expect(read).toEqual({ lengthBytes: SIZE, sha256 });
  });

  test.each(["zlib", "zstd"])("must compress what qemu-img reads: %s", async (type) => {
    const { compressedWrites } = await opened.page.evaluate(
      (one) => globalThis.page.writeImage("/disk.raw", `/made-${one}`, one),
      type,
    );
    expect(compressedWrites).toBeGreaterThan(0);
    const ours = join(folder, `ours-${type}.qcow2`);
    writeFileSync(ours, files.get(`/made-${type}`) ?? new Uint8Array());
    const check = JSON.parse(qemuImg("check", "--output=json", ours)) as Record<string, number>;
    expect(check["check-errors"]).toBe(0);
    expect(check["compressed-clusters"]).toBeGreaterThan(10);
    expect(qemuImg("compare", "-f", "raw", "-F", "qcow2", "disk.raw", ours)).toContain("identical");
    expect(qemuImg("info", ours)).toContain(`compression type: ${type}`);
  });
});
