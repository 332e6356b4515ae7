import { closeSync, existsSync, openSync } from "node:fs";
import { IoVector } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { type PositionalFile, readAt, writeAt } from "../src/positional-io.js";
import { failureOf } from "./support.js";

function fileOf(fd: number, filename: string): PositionalFile {
  return {
    fd,
    filename,
    nodeName: "n",
    direct: false,
    noteWritten: () => undefined,
    stat: () => Promise.resolve({ sizeBytes: 0, blocks: 0 }),
  };
}

describe.runIf(existsSync("/dev/full"))("writeAt() to a full device", () => {
  test.each([1, 3])("must fail with ENOSPC and name the range, in %i parts", async (parts) => {
    const fd = openSync("/dev/full", "r+");
    const source = IoVector.from(Array.from({ length: parts }, () => new Uint8Array(512)));
    const failure = await failureOf(() => writeAt(fileOf(fd, "full.img"), 4096, source));
    closeSync(fd);
    expect(failure).toMatchObject({
      code: "ENOSPC",
      op: "write",
      node: "n",
      offset: 4096,
      length: 512 * parts,
      message: `'full.img': write of ${512 * parts} bytes at offset 0x1000: No space left on device`,
    });
  });
});

describe("readAt()", () => {
  test("must report a descriptor that may not be read", async () => {
    const fd = openSync(process.execPath, "r");
    closeSync(fd);
    const failure = await failureOf(() => readAt(fileOf(fd, "gone"), 0, IoVector.allocate(8)));
    expect(failure.code).toBe("EBADF");
  });
});
