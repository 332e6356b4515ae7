/** What happens when the system has no more threads: the Worker's constructor throws, as Node's does then. */
import { hasCode } from "@blocklayer/bytes";
import { afterEach, expect, test, vi } from "vitest";
import { compressOn } from "../src/codec-jobs.js";
import { WorkerPool } from "../src/worker-pool.js";

/** How many more workers can start. */
const room = vi.hoisted(() => ({ workers: Number.POSITIVE_INFINITY }));

vi.mock("node:worker_threads", async (importOriginal) => {
  const real = await importOriginal<typeof import("node:worker_threads")>();
  return {
    ...real,
    Worker: class extends real.Worker {
      constructor(...args: ConstructorParameters<typeof real.Worker>) {
        if (room.workers-- <= 0) throw new Error("ERR_WORKER_INIT_FAILED: EAGAIN");
        super(...args);
      }
    },
  };
});

afterEach(() => {
  room.workers = Number.POSITIVE_INFINITY;
});

const cluster = new Uint8Array(4096);
const DEFLATE = { name: "deflate" } as const;

test("jobs must fail when no worker can start, and the pool must serve later ones", async () => {
  room.workers = 0;
  const pool = new WorkerPool(2);
  const works = [1, 2, 3].map(() => compressOn(pool, DEFLATE, [cluster], 6, 4096));
  for (const work of await Promise.allSettled(works)) {
    expect(work).toMatchObject({ status: "rejected", reason: { code: "EIO" } });
    expect(work.status === "rejected" && hasCode(work.reason, "EIO")).toBe(true);
  }
  room.workers = 1;
  expect((await compressOn(pool, DEFLATE, [cluster], 6, 4096))[0]).toBeDefined();
  await pool.close();
});

test("jobs must go to the workers that there are when no more can start", async () => {
  room.workers = 1;
  const pool = new WorkerPool(4);
  const works = Array.from({ length: 9 }, () => compressOn(pool, DEFLATE, [cluster], 6, 4096));
  for (const payloads of await Promise.all(works)) expect(payloads[0]).toBeDefined();
  await pool.close();
});
