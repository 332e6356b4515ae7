/** What requests benchImage sends, how many at once, and how it ends. */
import { BlockError } from "@blocklayer/bytes";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import { benchImage, openImage } from "../src/index.js";
import { Files } from "./support/files.js";

const KiB = 1024;
const REQUEST = { kind: "write", depth: 1, lengthBytes: KiB, offset: 0, stepBytes: KiB } as const;

async function disk(files: Files, lengthBytes: number): Promise<ReturnType<typeof openImage>> {
  files.put("disk.raw", new Uint8Array(0), lengthBytes);
  const drivers = [files.driver, rawDriver];
  return openImage("disk.raw", { drivers, format: "raw", readOnly: false });
}

test("benchImage() must step through the disk and go on from its start", async () => {
  const files = new Files();
  await using target = await disk(files, 8 * KiB);
  const offsets: number[] = [];
  files.onWrite = (_, offset) => void offsets.push(offset / KiB);
  await benchImage(target, { ...REQUEST, count: 6, offset: 2 * KiB, stepBytes: 3 * KiB });
  expect(offsets).toEqual([2, 5, 0, 3, 6, 1]);
});

test("benchImage() must write its pattern, and read nothing past the end", async () => {
  const files = new Files();
  await using target = await disk(files, 4 * KiB);
  await benchImage(target, { ...REQUEST, count: 4, pattern: 7 });
  const bytes = await target.read(0, 4 * KiB);
  expect(bytes.every((byte) => byte === 7)).toBe(true);
  const past = { ...REQUEST, kind: "read", count: 1, offset: 4 * KiB } as const;
  await expect(benchImage(target, past)).rejects.toMatchObject({ code: "EIO" });
});

test("benchImage() must keep as many requests in flight as it is told to", async () => {
  const files = new Files();
  await using target = await disk(files, 64 * KiB);
  let inFlight = 0;
  let most = 0;
  files.onWrite = async () => {
    most = Math.max(most, ++inFlight);
    await new Promise((resolve) => setTimeout(resolve, 1));
    inFlight--;
  };
  await benchImage(target, { ...REQUEST, count: 40, depth: 8 });
  expect([most, inFlight]).toEqual([8, 0]);
});

test.each([
  ["drained first", true, [2, 5, 8]],
  ["beside the writes", false, [3, 6]],
] as const)("benchImage() must flush every so many requests, %s", async (_, drains, flushed) => {
  const files = new Files();
  await using target = await disk(files, 64 * KiB);
  let ended = 0;
  let inFlight = 0;
  files.onWrite = async () => {
    inFlight++;
    await new Promise((resolve) => setTimeout(resolve, 1));
    inFlight--;
    ended++;
  };
  const at: number[] = [];
  const flush = target.flush.bind(target);
  target.flush = async (options) => {
    at.push(ended);
    if (drains) expect(inFlight).toBe(0);
    await flush(options);
  };
  const flushing = { flushInterval: 3, drainOnFlush: drains };
  await benchImage(target, { ...REQUEST, count: 8, depth: 1, ...flushing });
  expect(at).toEqual(flushed);
});

test("benchImage() must begin nothing after a failure, and end when all has ended", async () => {
  const files = new Files();
  await using target = await disk(files, 64 * KiB);
  let begun = 0;
  let ended = 0;
  files.onWrite = async () => {
    const turn = ++begun;
    await new Promise((resolve) => setTimeout(resolve, turn));
    ended++;
    if (turn === 2) throw new BlockError("EIO", "no more writes");
  };
  const bench = benchImage(target, { ...REQUEST, count: 40, depth: 8 });
  await expect(bench).rejects.toThrow(/no more writes/);
  expect(begun).toBeLessThan(12);
  expect(ended).toBe(begun);
});

test("benchImage() must be stopped by its signal, also where no request has to wait", async () => {
  const files = new Files();
  await using target = await disk(files, 64 * KiB);
  const { signal } = new AbortController();
  const aborting = AbortSignal.timeout(5);
  const endless = { ...REQUEST, kind: "read", count: 2 ** 31 - 1, lengthBytes: 0 } as const;
  await expect(benchImage(target, { ...endless, signal: aborting })).rejects.toMatchObject({
    code: "ECANCELED",
  });
  await benchImage(target, { ...endless, count: 10, signal });
});
