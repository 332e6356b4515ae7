import { GiB, TiB } from "@blocklayer/bytes";
import { BlockGraph } from "@blocklayer/block-graph";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import { Planner, type WorkItem } from "../src/copy/planner.js";
import { SourceList } from "../src/copy/source-list.js";
import { Files } from "./support/files.js";

const UNIT = 65536;

async function open(files: Files, filename: string) {
  const graph = new BlockGraph({ drivers: [files.driver, rawDriver] });
  return graph.open({ driver: "raw", file: { driver: "file", filename } }, { readOnly: true });
}

async function plan(
  sources: SourceList,
  options: Partial<ConstructorParameters<typeof Planner>[1]>,
) {
  const planner = new Planner(sources, {
    alignment: UNIT,
    maxDataBytes: 2 ** 21,
    zeroesAreData: false,
    backingLengthBytes: undefined,
    signal: undefined,
    ...options,
  });
  const items: WorkItem[] = [];
  for (;;) {
    const item = await planner.next();
    if (item === undefined) return items;
    items.push(item);
  }
}

test("Planner must cover the sources without gaps, break at units, and call no data a zero", async () => {
  const files = new Files();
  // The memory store knows holes in chunks of 64 KiB.
  const bytes = new Uint8Array(20 * UNIT + 1000);
  for (const chunk of [1, 2, 3, 7, 8, 20]) bytes[chunk * UNIT + 5] = 1;
  files.put("a", new Uint8Array(0), bytes.length);
  for (const chunk of [1, 2, 3, 7, 8, 20]) {
    files.stores.get("a")?.write(chunk * UNIT, bytes.subarray(chunk * UNIT, chunk * UNIT + 512));
  }
  files.put("b", new Uint8Array(3 * UNIT).fill(1));
  const sources = new SourceList([await open(files, "a"), await open(files, "b")], undefined);
  for (const alignment of [4096, UNIT, 4 * UNIT]) {
    const items = await plan(sources, { alignment });
    let at = 0;
    for (const item of items) {
      expect(item.offset).toBe(at);
      at += item.lengthBytes;
      if (at < sources.lengthBytes) expect(at % alignment).toBe(0);
      if (item.kind !== "zero") continue;
      const inA = bytes.subarray(item.offset, item.offset + item.lengthBytes);
      expect(inA.every((byte) => byte === 0)).toBe(true);
      expect(at).toBeLessThanOrEqual(bytes.length);
    }
    expect(at).toBe(sources.lengthBytes);
  }
  const exact = await plan(sources, {});
  expect(exact.filter(({ kind }) => kind === "zero")).toEqual([
    { kind: "zero", offset: 0, lengthBytes: UNIT },
    { kind: "zero", offset: 4 * UNIT, lengthBytes: 3 * UNIT },
    { kind: "zero", offset: 9 * UNIT, lengthBytes: 11 * UNIT },
  ]);
});

test("Planner must gather data to long items, and none longer than allowed", async () => {
  const files = new Files();
  files.put("a", new Uint8Array(100 * UNIT).fill(1));
  const items = await plan(new SourceList([await open(files, "a")], undefined), {
    maxDataBytes: 32 * UNIT,
  });
  expect(items.map(({ lengthBytes }) => lengthBytes / UNIT)).toEqual([32, 32, 32, 4]);
});

test("Planner must pass over a hole of a terabyte in a few steps", async () => {
  const files = new Files();
  files.put("a", new Uint8Array(0), TiB);
  const sources = new SourceList([await open(files, "a")], undefined);
  const before = files.statusCalls;
  const items = await plan(sources, {});
  expect(items.every(({ kind }) => kind === "zero")).toBe(true);
  expect(files.statusCalls - before).toBeLessThan(100);
});

test("Planner must call zeroes data when asked to, in items of bounded length", async () => {
  const files = new Files();
  files.put("a", new Uint8Array(0), 64 * UNIT);
  const sources = new SourceList([await open(files, "a")], undefined);
  const items = await plan(sources, { zeroesAreData: true, maxDataBytes: 16 * UNIT });
  expect(items).toHaveLength(4);
  expect(items.every(({ kind }) => kind === "data")).toBe(true);
});

test("Planner must leave zeroes behind the end of the target's backing image alone", async () => {
  const files = new Files();
  files.put("a", new Uint8Array(0), GiB);
  const sources = new SourceList([await open(files, "a")], undefined);
  const items = await plan(sources, { backingLengthBytes: 3 * UNIT });
  expect(items).toEqual([
    { kind: "zero", offset: 0, lengthBytes: 3 * UNIT },
    { kind: "backing", offset: 3 * UNIT, lengthBytes: GiB - 3 * UNIT },
  ]);
});
