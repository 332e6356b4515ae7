import { getEventListeners } from "node:events";
import { AssertionError, hasCode } from "@blocklayer/bytes";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CoMutex, type Lease } from "../src/index.js";
import { commandsOf, runModel, turn } from "./lock-model.js";

function held(result: Lease | Promise<Lease>): Lease {
  expect(result).not.toBeInstanceOf(Promise);
  return result as Lease;
}

describe("CoMutex", () => {
  test("acquire() of a free mutex must return its lease at once", () => {
    const mutex = new CoMutex();
    const lease = held(mutex.acquire());
    expect(mutex.locked).toBe(true);
    lease.release();
    expect(mutex.locked).toBe(false);
  });

  test("release() must hand the lock over in the same step, so that nobody slips in", async () => {
    const mutex = new CoMutex();
    const first = held(mutex.acquire());
    const second = mutex.acquire();
    first.release();
    expect(mutex.locked).toBe(true);
    expect(mutex.tryAcquire()).toBeUndefined();
    (await second).release();
    expect(mutex.locked).toBe(false);
  });

  test("acquire() must keep the order of arrival and exclude others, whatever is aborted", async () => {
    await fc.assert(
      fc.asyncProperty(commandsOf(fc.constant(undefined)), async (commands) => {
        const mutex = new CoMutex();
        const lock = {
          acquire: (_: undefined, signal: AbortSignal) => mutex.acquire({ signal }),
          tryAcquire: () => mutex.tryAcquire(),
          get waiting() {
            return mutex.waiting;
          },
          isFree: () => !mutex.locked,
        };
        await runModel(lock, (_, earlier) => earlier.length === 0, commands);
        expect(mutex.locked).toBe(false);
      }),
      { numRuns: 150 },
    );
  });

  test("acquire() must reject with ECANCELED and the reason when the signal is aborted", async () => {
    const mutex = new CoMutex("image lock");
    const lease = held(mutex.acquire());
    const controller = new AbortController();
    const waiting = mutex.acquire({ signal: controller.signal }) as Promise<Lease>;
    controller.abort("enough");
    const error: unknown = await waiting.catch((reason: unknown) => reason);
    expect(hasCode(error, "ECANCELED")).toBe(true);
    expect(error).toMatchObject({ message: "image lock: the wait was aborted", cause: "enough" });
    expect(mutex.waiting).toBe(0);
    lease.release();
    expect(() => mutex.acquire({ signal: controller.signal })).toThrow("aborted");
    expect(mutex.locked).toBe(false);
  });

  test("a wait must leave no listener on its signal, however it ends", async () => {
    const mutex = new CoMutex();
    const granted = new AbortController();
    const aborted = new AbortController();
    const first = held(mutex.acquire({ signal: granted.signal }));
    expect(getEventListeners(granted.signal, "abort")).toHaveLength(0);
    const second = mutex.acquire({ signal: granted.signal });
    const third = mutex.acquire({ signal: aborted.signal }) as Promise<Lease>;
    expect(getEventListeners(granted.signal, "abort")).toHaveLength(1);
    expect(getEventListeners(aborted.signal, "abort")).toHaveLength(1);
    aborted.abort();
    first.release();
    expect(getEventListeners(granted.signal, "abort")).toHaveLength(0);
    expect(getEventListeners(aborted.signal, "abort")).toHaveLength(0);
    (await second).release();
    await expect(third).rejects.toMatchObject({ code: "ECANCELED" });
  });

  test("one signal must end all waits that have it", async () => {
    const mutex = new CoMutex();
    const lease = held(mutex.acquire());
    const { signal, abort } = ((controller) => ({
      signal: controller.signal,
      abort: () => controller.abort(),
    }))(new AbortController());
    const waits = [1, 2, 3].map(() => Promise.resolve(mutex.acquire({ signal })));
    abort();
    for (const result of await Promise.allSettled(waits)) expect(result.status).toBe("rejected");
    lease.release();
    expect(mutex.locked).toBe(false);
  });

  test("release() twice must fail an assertion and release nobody else", async () => {
    const mutex = new CoMutex();
    const first = held(mutex.acquire());
    const second = mutex.acquire();
    first.release();
    expect(() => first.release()).toThrow(AssertionError);
    await turn();
    expect(mutex.locked).toBe(true);
    (await second).release();
  });

  test("acquire() by the owner that holds the lock must fail an assertion", () => {
    const mutex = new CoMutex();
    const owner = {};
    const lease = held(mutex.acquire({ owner }));
    expect(() => mutex.acquire({ owner })).toThrow(AssertionError);
    expect(() => mutex.tryAcquire({ owner })).toThrow(AssertionError);
    expect(mutex.tryAcquire({ owner: {} })).toBeUndefined();
    lease.release();
    held(mutex.acquire({ owner })).release();
  });

  test("a lease must work with Symbol.dispose", () => {
    const mutex = new CoMutex();
    held(mutex.acquire())[Symbol.dispose]();
    expect(mutex.locked).toBe(false);
  });
});
