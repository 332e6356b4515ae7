import { AssertionError } from "@blocklayer/bytes";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CoSemaphore, type Lease } from "../src/index.js";
import { commandsOf, runModel } from "./lock-model.js";

describe("CoSemaphore", () => {
  test("acquire() must serve strictly in order and never lend more than there is", async () => {
    const permits = 4;
    await fc.assert(
      fc.asyncProperty(commandsOf(fc.integer({ min: 1, max: permits })), async (commands) => {
        const semaphore = new CoSemaphore(permits);
        const lock = {
          acquire: (count: number, signal: AbortSignal) => semaphore.acquire(count, { signal }),
          tryAcquire: (count: number) => semaphore.tryAcquire(count),
          get waiting() {
            return semaphore.waiting;
          },
          isFree: () => semaphore.available === permits,
        };
        const admits: Parameters<typeof runModel<number>>[1] = (count, earlier) => {
          const out = earlier.reduce((sum, request) => sum + request.args, 0);
          const waiting = earlier.some((request) => request.state === "waiting");
          return !waiting && out + count <= permits;
        };
        await runModel(lock, admits, commands);
        expect(semaphore.available).toBe(permits);
      }),
      { numRuns: 150 },
    );
  });

  test("an abort of a large request must let the small ones behind it go on", async () => {
    const semaphore = new CoSemaphore(2);
    const first = semaphore.acquire(1) as Lease;
    const controller = new AbortController();
    const large = semaphore.acquire(2, { signal: controller.signal }) as Promise<Lease>;
    const small = semaphore.acquire(1);
    expect(semaphore.waiting).toBe(2);
    controller.abort();
    expect(semaphore.waiting).toBe(0);
    await expect(large).rejects.toMatchObject({ code: "ECANCELED" });
    (await small).release();
    first.release();
    expect(semaphore.available).toBe(2);
  });

  test("misuse must fail an assertion", () => {
    const semaphore = new CoSemaphore(2);
    const owner = {};
    expect(() => semaphore.acquire(3)).toThrow(AssertionError);
    expect(() => semaphore.acquire(0)).toThrow(AssertionError);
    expect(() => new CoSemaphore(0)).toThrow(AssertionError);
    const lease = semaphore.acquire(1, { owner }) as Lease;
    expect(() => semaphore.acquire(1, { owner })).toThrow(AssertionError);
    lease.release();
    expect(() => lease.release()).toThrow(AssertionError);
    expect(semaphore.available).toBe(2);
    (semaphore.acquire(1, { owner }) as Lease).release();
  });
});
