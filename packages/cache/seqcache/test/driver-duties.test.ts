/** The rules that the caller keeps, kept as the README says: the cache must give it what that takes. */
import { describe, expect, test } from "vitest";
import { writeLength } from "../src/index.js";
import { SmallDriver, turns } from "./support/driver.js";
import { bytesOf } from "./support/pool.js";

const SIZE = 16;

describe("writeLength()", () => {
  test("[S6] must move the end of a finished entry up to the alignment, never past the cluster", () => {
    const { cache } = new SmallDriver(SIZE);
    cache.write(3, bytesOf(0, 6));
    cache.write(SIZE, bytesOf(0, SIZE));
    const flush = cache.nextFlush();
    if (flush === undefined) throw new Error("nothing was handed out");
    expect([1, 4, 8, 16, 64].map((alignment) => writeLength(flush, alignment))).toEqual([
      6, 9, 13, 13, 13,
    ]);
  });

  test("[S6] must leave an unfinished entry exact", () => {
    const { cache } = new SmallDriver(SIZE);
    cache.write(3, bytesOf(0, 6));
    const flush = cache.nextFlush({ unfinished: true });
    if (flush === undefined) throw new Error("nothing was handed out");
    expect([1, 4, 16, 64].map((alignment) => writeLength(flush, alignment))).toEqual([6, 6, 6, 6]);
  });

  test("[S6] must pad an unfinished entry for who keeps appends away", () => {
    const { cache } = new SmallDriver(SIZE);
    cache.write(3, bytesOf(0, 6));
    const flush = cache.nextFlush({ unfinished: true });
    if (flush === undefined) throw new Error("nothing was handed out");
    expect([1, 4, 16, 64].map((alignment) => writeLength(flush, alignment, false))).toEqual([
      6, 9, 13, 13,
    ]);
  });
});

describe("a flush", () => {
  test("[S6] must not overwrite with zeroes what was appended while it wrote the unfinished entry", async () => {
    const driver = new SmallDriver(SIZE);
    driver.cache.write(0, bytesOf(0, 5));
    const first = driver.flush();
    driver.cache.write(5, bytesOf(5, SIZE - 5));
    const second = driver.flush();
    await turns();
    // The later write ends first.
    await driver.pending[1]?.end();
    await driver.pending[0]?.end();
    await Promise.all([first, second]);
    expect(driver.file.subarray(0, SIZE)).toEqual(bytesOf(0, SIZE));
    driver.cache.free();
  });

  test("[S8] must wait for the entries that other writers have in flight", async () => {
    const driver = new SmallDriver(SIZE);
    driver.cache.write(0, bytesOf(0, SIZE));
    const writer = driver.flushOne();
    expect([driver.cache.flushableCount, driver.cache.handedOutCount]).toEqual([0, 1]);
    let done = false;
    const flush = driver.flush().then(() => {
      done = true;
    });
    await turns();
    expect(done).toBe(false);
    await driver.pending[0]?.end();
    await Promise.all([writer, flush]);
    expect(driver.cache.handedOutCount).toBe(0);
    driver.cache.free();
  });

  test("[S8] must fail when a write fails that another writer had in flight, and succeed later", async () => {
    const driver = new SmallDriver(SIZE);
    driver.cache.write(0, bytesOf(0, SIZE));
    const ends = Promise.allSettled([driver.flushOne(), driver.flush()]);
    await turns();
    await driver.pending[0]?.end(new Error("EIO"));
    expect((await ends).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    const again = driver.flush();
    await turns();
    await driver.pending[1]?.end();
    await again;
    expect(driver.file.subarray(0, SIZE)).toEqual(bytesOf(0, SIZE));
    driver.cache.free();
  });

  test("[S9] must end after the entries of its start, though a writer adds one for each", async () => {
    const driver = new SmallDriver(SIZE);
    driver.cache.write(0, bytesOf(0, 3 * SIZE + 1));
    expect(driver.cache.flushableCount).toBe(4);
    let ended = false;
    const flush = driver.flush().then(() => {
      ended = true;
    });
    let at = 3 * SIZE + 1;
    for (let i = 0; i < 20 && !ended; i++) {
      await turns();
      driver.cache.write(at, bytesOf(at, SIZE));
      at += SIZE;
      await driver.pending[i]?.end();
    }
    await flush;
    expect(driver.pending.length).toBe(4);
    expect(driver.cache.flushableCount).toBe(4);
  });

  test("sequential writers must cost one whole data write for each cluster", async () => {
    const driver = new SmallDriver(SIZE, 4, 2000);
    let ended = 0;
    const endAll = async (): Promise<void> => {
      while (ended < driver.pending.length) await driver.pending[ended++]?.end();
    };
    for (let at = 0; at < 1600; at += 5) {
      driver.cache.write(at, bytesOf(at, 5));
      const one = driver.flushOne();
      await endAll();
      await one;
    }
    expect(driver.pending.length).toBe(100);
    expect(driver.pending.every(({ length }) => length === SIZE)).toBe(true);
    expect(driver.file.subarray(0, 1600)).toEqual(bytesOf(0, 1600));
    driver.cache.free();
  });
});
