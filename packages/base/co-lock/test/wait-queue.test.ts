import { getEventListeners } from "node:events";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { WaitQueue } from "../src/index.js";
import { turn } from "./lock-model.js";

describe("WaitQueue", () => {
  test("wakeOne() and wakeAll() must wake in order, and no wake-up may go to an aborted waiter", async () => {
    const action = fc.oneof(
      fc.constant({ do: "wait" as const, which: 0 }),
      fc.constant({ do: "wakeOne" as const, which: 0 }),
      fc.constant({ do: "wakeAll" as const, which: 0 }),
      fc.nat({ max: 100 }).map((which) => ({ do: "abort" as const, which })),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 40 }), async (actions) => {
        const queue = new WaitQueue();
        const waiting: { id: number; controller: AbortController }[] = [];
        const all: AbortController[] = [];
        const expected: number[] = [];
        const woken: number[] = [];
        const aborted = new Set<number>();
        for (const { do: what, which } of actions) {
          if (what === "wait") {
            const controller = new AbortController();
            const id = all.push(controller) - 1;
            waiting.push({ id, controller });
            queue.wait({ signal: controller.signal }).then(
              () => woken.push(id),
              () => aborted.add(id),
            );
          } else if (what === "wakeOne") {
            const head = waiting.shift();
            expect(queue.wakeOne()).toBe(head !== undefined);
            if (head !== undefined) expected.push(head.id);
          } else if (what === "wakeAll") {
            expect(queue.wakeAll()).toBe(waiting.length);
            expected.push(...waiting.splice(0).map(({ id }) => id));
          } else if (all.length > 0) {
            // Aborting who was woken already must not take the wake-up back.
            const id = which % all.length;
            all[id]?.abort();
            const index = waiting.findIndex((waiter) => waiter.id === id);
            if (index >= 0) waiting.splice(index, 1);
          }
          expect(queue.waiting).toBe(waiting.length);
        }
        await turn();
        expect(woken).toEqual(expected);
        expect(aborted.size).toBe(all.length - woken.length - waiting.length);
      }),
      { numRuns: 150 },
    );
  });

  test("wait() with an aborted signal must reject and not join the queue", async () => {
    const queue = new WaitQueue();
    await expect(queue.wait({ signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "ECANCELED",
    });
    expect(queue.waiting).toBe(0);
  });

  test("wakeOne() must take the listener off the signal", async () => {
    const queue = new WaitQueue();
    const { signal } = new AbortController();
    const wait = queue.wait({ signal });
    expect(getEventListeners(signal, "abort")).toHaveLength(1);
    queue.wakeOne();
    expect(getEventListeners(signal, "abort")).toHaveLength(0);
    await wait;
  });

  test("wakeAll() must not wake who joins because of it", async () => {
    const queue = new WaitQueue();
    let rounds = 0;
    const again = queue.wait().then(() => {
      rounds++;
      return queue.wait();
    });
    expect(queue.wakeAll()).toBe(1);
    await turn();
    expect(rounds).toBe(1);
    expect(queue.waiting).toBe(1);
    queue.wakeOne();
    await again;
  });
});
