import { chmodSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MiB } from "@blocklayer/bytes";
import { parseOptions } from "@blocklayer/block-api";
import { describe, expect, test } from "vitest";
import { createFile, fileDriver, loadNative } from "../src/index.js";
import { failureOf, noNative, run, scratchDirectory, useQemu } from "./support.js";

const directory = scratchDirectory();
const native = (await loadNative()).native;
let files = 0;

function name(): string {
  return join(directory, `made-${files++}.img`);
}

function optionsOf(given: Record<string, unknown>): ReturnType<typeof parseOptions> {
  return parseOptions(fileDriver.createOptions ?? {}, given, "file");
}

const layers = [
  { layer: "with native calls", load: loadNative },
  { layer: "without", load: noNative },
];

describe.each(layers)("createFile() $layer", ({ load }) => {
  test("must make a sparse file of zeroes with mode 0644", async () => {
    const filename = name();
    await createFile(filename, optionsOf({ size: "8M" }), undefined, load);
    const stats = statSync(filename);
    expect(stats.size).toBe(8 * MiB);
    expect(stats.mode & 0o777 & ~0o644).toBe(0);
    expect(stats.blocks * 512).toBeLessThanOrEqual(65536);
    expect(readFileSync(filename).every((byte) => byte === 0)).toBe(true);
  });

  test("must empty a file that is there, and keep its mode", async () => {
    const filename = name();
    writeFileSync(filename, new Uint8Array(100000).fill(9));
    chmodSync(filename, 0o600);
    await createFile(filename, optionsOf({ size: 1000 }), undefined, load);
    expect(readFileSync(filename)).toEqual(Buffer.alloc(1000));
    expect(statSync(filename).mode & 0o777).toBe(0o600);
  });

  test("must write the whole file with preallocation=full", async () => {
    const filename = name();
    const options = optionsOf({ size: 3 * MiB + 5, preallocation: "full", nocow: "on" });
    await createFile(filename, options, undefined, load);
    expect(statSync(filename).size).toBe(3 * MiB + 5);
    expect(statSync(filename).blocks * 512).toBeGreaterThanOrEqual(3 * MiB);
  });

  test("must make what a symbolic link to nothing names", async () => {
    const filename = name();
    symlinkSync(`${filename}.target`, filename);
    await createFile(filename, optionsOf({ size: 5 }), undefined, load);
    expect(statSync(`${filename}.target`).size).toBe(5);
  });

  test("must say which directory is not there", async () => {
    const failure = await failureOf(() =>
      createFile(join(directory, "none", "x"), optionsOf({}), undefined, load),
    );
    expect(failure).toMatchObject({ code: "ENOENT", op: "create" });
    expect(failure.message).toContain("Could not create");
  });

  test("must refuse a device that is no disk", async () => {
    const failure = await failureOf(() => createFile("/dev/null", optionsOf({}), undefined, load));
    expect(failure.message).toContain("character device");
  });

  test("must do nothing when aborted before it began", async () => {
    const filename = name();
    writeFileSync(filename, "keep");
    const signal = AbortSignal.abort();
    const failure = await failureOf(() => createFile(filename, optionsOf({}), signal, load));
    expect(failure.code).toBe("ECANCELED");
    expect(readFileSync(filename, "utf8")).toBe("keep");
  });
});

describe("createFile()", () => {
  test.runIf(native !== undefined)("must set space aside with preallocation=falloc", async () => {
    const filename = name();
    await createFile(filename, optionsOf({ size: "2M", preallocation: "falloc" }));
    expect(statSync(filename).size).toBe(2 * MiB);
    expect(statSync(filename).blocks * 512).toBeGreaterThanOrEqual(2 * MiB);
  });

  test.runIf(native !== undefined && useQemu).each(["off", "falloc", "full"])(
    "must take as much space as qemu-img does with preallocation=%s",
    async (preallocation) => {
      const ours = name();
      const theirs = name();
      await createFile(ours, optionsOf({ size: "1M", preallocation }));
      const args = ["-f", "raw", "-o", `preallocation=${preallocation}`, theirs, "1M"];
      expect(run("qemu-img", "create", "-q", ...args).status).toBe(0);
      expect(statSync(ours).size).toBe(statSync(theirs).size);
      expect(statSync(ours).blocks).toBe(statSync(theirs).blocks);
    },
  );
});
