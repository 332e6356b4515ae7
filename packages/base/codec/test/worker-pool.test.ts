import { deflateRawSync } from "node:zlib";
import { hasCode } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { compressOn, decompressOn } from "../src/codec-jobs.js";
import { type Job, WorkerPool } from "../src/worker-pool.js";
import { WORKER_SOURCE } from "../src/worker-source.js";
import { CLUSTER, differenceOf, noise, repetitive } from "./samples.js";

const cluster = new Uint8Array(4096);
const DEFLATE = { name: "deflate" } as const;

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  return undefined;
}

describe("a worker that dies", () => {
  const deaths = {
    "exits at a message": `require("node:worker_threads").parentPort.on("message", () => process.exit(1));`,
    "throws at a message": `require("node:worker_threads").parentPort.on("message", () => { throw new Error("x"); });`,
    "throws at its start": `throw new Error("x");`,
    "does not parse": `}`,
    "runs out of memory": `require("node:worker_threads").parentPort.on("message", () => {
      const all = []; for (;;) all.push(new Array(10000).fill({}));
    });`,
  };
  for (const [how, source] of Object.entries(deaths)) {
    test(`must fail its jobs and those that wait, when it ${how}`, async () => {
      const pool = new WorkerPool(2, source);
      const works = Array.from({ length: 7 }, () => compressOn(pool, DEFLATE, [cluster], 6, 4096));
      for (const error of await Promise.all(works.map(failureOf))) {
        expect(hasCode(error, "EIO")).toBe(true);
        expect(String(error)).toContain("worker thread ended unexpectedly");
      }
      await pool.close();
    });
  }

  test("must be replaced for the next job", async () => {
    // The first worker of the process that reads the flag dies, later ones answer.
    const flag = new SharedArrayBuffer(4);
    const source = `
      const { parentPort } = require("node:worker_threads");
      parentPort.on("message", ({ id, buffers }) => {
        if (Atomics.add(new Int32Array(buffers[0]), 0, 1) === 0) process.exit(1);
        parentPort.postMessage({ id, lengths: [] });
      });`;
    const pool = new WorkerPool(1, source);
    const job = (): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const task: Job = {
          prepare: () => ({
            op: "compress",
            codec: DEFLATE,
            level: 6,
            maxBytes: 0,
            buffers: [flag],
            spans: [],
          }),
          finish: resolve,
          fail: reject,
        };
        pool.submit(task);
      });
    expect(hasCode(await failureOf(job()), "EIO")).toBe(true);
    expect(await job()).toMatchObject({ lengths: [] });
    await pool.close();
  });
});

test("a job that a worker cannot do must fail alone", async () => {
  const pool = new WorkerPool(1);
  const impossible = new Promise((resolve, reject) => {
    pool.submit({
      prepare: () => ({
        op: "compress",
        codec: DEFLATE,
        level: 99,
        maxBytes: 0,
        buffers: [],
        spans: [0, 0, 1],
      }),
      finish: resolve,
      fail: reject,
    });
  });
  const good = compressOn(pool, DEFLATE, [cluster], 6, 4096);
  expect(String(await failureOf(impossible))).toContain("codec worker thread failed");
  expect((await good)[0]).toBeDefined();
  await pool.close();
});

test("a job that cannot be prepared must fail alone", async () => {
  const pool = new WorkerPool(1);
  const broken = new Promise((resolve, reject) => {
    pool.submit({
      prepare: () => {
        throw new RangeError("no memory");
      },
      finish: resolve,
      fail: reject,
    });
  });
  expect(hasCode(await failureOf(broken), "EIO")).toBe(true);
  expect((await compressOn(pool, DEFLATE, [cluster], 6, 4096))[0]).toBeDefined();
  await pool.close();
});

describe.each([true, false])("a worker that %s uses a stream again", (usesHandle) => {
  test("must deflate and inflate the same, at the limits of maxBytes too", async () => {
    const pool = new WorkerPool(1, WORKER_SOURCE, usesHandle);
    const clusters = [repetitive(CLUSTER, 1), noise(CLUSTER, 2), repetitive(CLUSTER, 3)];
    const all = await compressOn(pool, DEFLATE, clusters, 6, 2 * CLUSTER);
    const expected = clusters.map((c) => deflateRawSync(c, { windowBits: 12, memLevel: 8 }));
    for (const [i, payload] of all.entries())
      expect(differenceOf(payload, expected[i] as Uint8Array)).toBeUndefined();
    const length = expected[0]?.length ?? 0;
    expect((await compressOn(pool, DEFLATE, clusters, 6, length))[0]).toHaveLength(length);
    expect((await compressOn(pool, DEFLATE, clusters, 6, length - 1))[0]).toBeUndefined();
    expect((await compressOn(pool, DEFLATE, clusters, 6, 0)).every((p) => p === undefined)).toBe(
      true,
    );
    expect((await compressOn(pool, DEFLATE, clusters, 1, CLUSTER))[0]).not.toHaveLength(length);
    const targets = clusters.map(() => new Uint8Array(CLUSTER));
    const items = all.map((payload, i) => ({
      payload: payload as Uint8Array,
      target: targets[i] as Uint8Array,
    }));
    await decompressOn(pool, DEFLATE, items);
    for (const [i, target] of targets.entries())
      expect(differenceOf(target, clusters[i] as Uint8Array)).toBeUndefined();
    const bad = { payload: Uint8Array.of(7, 7), target: new Uint8Array(CLUSTER) };
    expect(await decompressOn(pool, DEFLATE, [...items, bad])).toEqual([bad]);
    expect(await decompressOn(pool, DEFLATE, items)).toEqual([]);
    await pool.close();
  });
});
