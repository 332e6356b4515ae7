import { AssertionError, hasCode } from "@blocklayer/bytes";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CoRwLock, type RwLease, type RwMode } from "../src/index.js";
import { commandsOf, runModel, turn } from "./lock-model.js";

function read(lock: CoRwLock): RwLease {
  return lock.acquireRead() as RwLease;
}

describe("CoRwLock", () => {
  test("acquireRead() and acquireWrite() must exclude each other in order of arrival", async () => {
    const mode = fc.constantFrom<RwMode>("read", "read", "write");
    await fc.assert(
      fc.asyncProperty(commandsOf(mode), async (commands) => {
        const rw = new CoRwLock();
        const lock = {
          acquire: (wanted: RwMode, signal: AbortSignal) =>
            wanted === "read" ? rw.acquireRead({ signal }) : rw.acquireWrite({ signal }),
          get waiting() {
            return rw.waiting;
          },
          isFree: () => rw.readers === 0 && !rw.writing,
        };
        const admits: Parameters<typeof runModel<RwMode>>[1] = (wanted, earlier) =>
          earlier.every((request) => wanted === "read" && request.args === "read");
        await runModel(lock, admits, commands);
        expect(rw.writing).toBe(false);
      }),
      { numRuns: 150 },
    );
  });

  test("downgrade() must let in waiting readers up to the first writer", async () => {
    const lock = new CoRwLock();
    const writer = lock.acquireWrite() as RwLease;
    const entered: string[] = [];
    const follow = (name: string, wait: RwLease | Promise<RwLease>): Promise<RwLease> =>
      Promise.resolve(wait).then((lease) => {
        entered.push(name);
        return lease;
      });
    const r1 = follow("r1", lock.acquireRead());
    const w1 = follow("w1", lock.acquireWrite());
    const r2 = follow("r2", lock.acquireRead());
    writer.downgrade();
    expect(writer.mode).toBe("read");
    await turn();
    expect(entered).toEqual(["r1"]);
    writer.release();
    (await r1).release();
    (await w1).release();
    (await r2).release();
    expect(entered).toEqual(["r1", "w1", "r2"]);
    expect(lock.readers).toBe(0);
  });

  test("upgrade() of the only reader must be immediate, even when a writer waits", async () => {
    const lock = new CoRwLock();
    const reader = read(lock);
    const waiting = lock.acquireWrite();
    expect(reader.upgrade()).toBeUndefined();
    expect(reader.mode).toBe("write");
    expect([lock.writing, lock.readers]).toEqual([true, 0]);
    reader.release();
    (await waiting).release();
  });

  test("upgrade() must wait for the other readers, go before the queue and admit nobody new", async () => {
    const lock = new CoRwLock();
    const upgrader = read(lock);
    const other = read(lock);
    const order: string[] = [];
    const writer = Promise.resolve(lock.acquireWrite()).then((lease) => {
      order.push("writer");
      return lease;
    });
    const upgraded = Promise.resolve(upgrader.upgrade()).then(() => order.push("upgrade"));
    const late = lock.acquireRead();
    expect(late).toBeInstanceOf(Promise);
    expect(() => upgrader.release()).toThrow(AssertionError);
    other.release();
    await upgraded;
    expect(upgrader.mode).toBe("write");
    upgrader.release();
    (await writer).release();
    (await late).release();
    expect(order).toEqual(["upgrade", "writer"]);
  });

  test("a second upgrade() must be refused with EBUSY and keep its read lock", async () => {
    const lock = new CoRwLock();
    const first = read(lock);
    const second = read(lock);
    const upgraded = first.upgrade();
    let error: unknown;
    try {
      void second.upgrade();
    } catch (caught) {
      error = caught;
    }
    expect(hasCode(error, "EBUSY")).toBe(true);
    expect(second.mode).toBe("read");
    expect(lock.readers).toBe(2);
    second.release();
    await upgraded;
    first.release();
    expect([lock.readers, lock.writing, lock.waiting]).toEqual([0, false, 0]);
  });

  test("an aborted upgrade() must keep the read lock and let in whom it held up", async () => {
    const lock = new CoRwLock();
    const upgrader = read(lock);
    const other = read(lock);
    const controller = new AbortController();
    const upgrade = upgrader.upgrade({ signal: controller.signal }) as Promise<void>;
    const late = lock.acquireRead();
    controller.abort();
    await expect(upgrade).rejects.toMatchObject({ code: "ECANCELED" });
    expect(upgrader.mode).toBe("read");
    expect(lock.readers).toBe(3);
    (await late).release();
    other.release();
    expect(upgrader.upgrade()).toBeUndefined();
    upgrader.release();
    expect(lock.writing).toBe(false);
  });

  test("random upgrades, downgrades and aborts must never deadlock nor mix readers with a writer", async () => {
    const action = fc.record({
      do: fc.constantFrom("read", "read", "write", "upgrade", "downgrade", "release", "abort"),
      which: fc.nat({ max: 100 }),
      settle: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
        const lock = new CoRwLock();
        const held = new Set<RwLease>();
        const upgrading = new Set<RwLease>();
        let open: { controller: AbortController; done: boolean }[] = [];
        const start = (
          wait: (signal: AbortSignal) => RwLease | undefined | Promise<RwLease | undefined>,
          then: (lease: RwLease | undefined) => void,
          failed: () => void = () => {},
        ): void => {
          const entry = { controller: new AbortController(), done: false };
          const end = (run: () => void): void => {
            entry.done = true;
            run();
          };
          try {
            const result = wait(entry.controller.signal);
            if (result instanceof Promise) {
              open.push(entry);
              result.then(
                (lease) => end(() => then(lease)),
                () => end(failed),
              );
            } else then(result);
          } catch (error) {
            expect(hasCode(error, "EBUSY")).toBe(true);
            failed();
          }
        };
        const check = (): void => {
          const writers = [...held].filter((lease) => lease.mode === "write").length;
          expect(writers === 0 || held.size === 1).toBe(true);
          expect(lock.writing && lock.readers > 0).toBe(false);
        };
        for (const { do: what, which, settle } of actions) {
          const leases = [...held].filter((lease) => !upgrading.has(lease));
          const lease = leases[which % leases.length];
          if (what === "read" || what === "write") {
            start(
              (signal) =>
                what === "read" ? lock.acquireRead({ signal }) : lock.acquireWrite({ signal }),
              (got) => got && held.add(got),
            );
          } else if (what === "abort") {
            open = open.filter((entry) => !entry.done);
            open[which % open.length]?.controller.abort();
          } else if (lease !== undefined && what === "release") {
            held.delete(lease);
            lease.release();
          } else if (lease !== undefined && what === "downgrade" && lease.mode === "write") {
            lease.downgrade();
          } else if (lease !== undefined && what === "upgrade" && lease.mode === "read") {
            upgrading.add(lease);
            start(
              (signal) => lease.upgrade({ signal }) as undefined | Promise<undefined>,
              () => upgrading.delete(lease),
              () => upgrading.delete(lease),
            );
          }
          if (settle) {
            await turn();
            check();
          }
        }
        for (;;) {
          await turn();
          check();
          const lease = [...held].find((candidate) => !upgrading.has(candidate));
          if (lease === undefined) break;
          held.delete(lease);
          lease.release();
        }
        expect([held.size, lock.readers, lock.writing, lock.waiting]).toEqual([0, 0, false, 0]);
      }),
      { numRuns: 300 },
    );
  });

  test("misuse must fail an assertion", () => {
    const lock = new CoRwLock();
    const owner = {};
    const reader = lock.acquireRead({ owner }) as RwLease;
    expect(() => lock.acquireRead({ owner })).toThrow(AssertionError);
    expect(() => lock.acquireWrite({ owner })).toThrow(AssertionError);
    expect(() => reader.downgrade()).toThrow(AssertionError);
    expect(reader.upgrade()).toBeUndefined();
    expect(() => lock.acquireRead({ owner })).toThrow(AssertionError);
    reader.downgrade();
    expect(() => lock.acquireRead({ owner })).toThrow(AssertionError);
    reader.release();
    expect(() => reader.release()).toThrow(AssertionError);
    expect(() => reader.upgrade()).toThrow(AssertionError);
    (lock.acquireWrite({ owner }) as RwLease).release();
    expect(lock.writing).toBe(false);
  });
});
