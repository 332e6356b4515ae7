import { expect, test } from "vitest";
import { type Clock, RateLimit } from "../src/copy/rate-limit.js";

/** Time passes only in sleep. */
class FakeClock implements Clock {
  now = 0;
  nowMs(): number {
    return this.now;
  }
  async sleep(milliseconds: number): Promise<void> {
    this.now += milliseconds;
  }
}

test("RateLimit must let bytes go no faster than it was told", async () => {
  const clock = new FakeClock();
  const limit = new RateLimit(1_000_000, clock);
  for (let i = 0; i < 100; i++) await limit.take(100_000);
  // The last one's own time need not be waited for.
  expect(clock.now).toBeGreaterThan(9_850);
  expect(clock.now).toBeLessThan(10_000);
});

test("RateLimit must not save up time in which nothing went", async () => {
  const clock = new FakeClock();
  const limit = new RateLimit(1_000_000, clock);
  clock.now = 60_000;
  await limit.take(1_000_000);
  await limit.take(1_000_000);
  expect(clock.now).toBe(61_000);
});
