import { expect, test } from "vitest";
import { readStamp, ReferenceDisk, ReferenceMismatchError, stampedBytes } from "../src/index.js";

const SECTOR = 512;
const filled = (value: number): Uint8Array => new Uint8Array(SECTOR).fill(value);

/** Which of these fills the model takes after a crash, and which in operation. */
function taken(disk: ReferenceDisk, values: readonly number[]): { crash: string; live: string } {
  const isTaken = (check: () => void): boolean => {
    try {
      check();
      return true;
    } catch (error) {
      expect(error).toBeInstanceOf(ReferenceMismatchError);
      return false;
    }
  };
  return {
    crash: values.filter((v) => isTaken(() => disk.checkCrash(filled(v)))).join(""),
    live: values.filter((v) => isTaken(() => disk.check(filled(v)))).join(""),
  };
}

const oneSector = (): ReferenceDisk => new ReferenceDisk({ lengthBytes: SECTOR });
const VALUES = [0, 1, 2, 3, 9];

test("before a flush every write since may be there after a crash, and in operation only the last", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  disk.write(0, filled(2));
  expect(taken(disk, VALUES)).toEqual({ crash: "012", live: "2" });
});

test("a flush must leave only the last write", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  disk.write(0, filled(2));
  disk.flush();
  expect(taken(disk, VALUES)).toEqual({ crash: "2", live: "2" });
  disk.write(0, filled(3));
  expect(taken(disk, VALUES)).toEqual({ crash: "23", live: "3" });
});

test("a flush that began before a write ended must not vouch for it", () => {
  const disk = oneSector();
  const write = disk.startWrite(0, filled(1));
  const flush = disk.startFlush();
  disk.finish(write);
  disk.finishFlush(flush);
  expect(taken(disk, VALUES)).toEqual({ crash: "01", live: "1" });
});

test("a flush that has not ended must promise nothing", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  disk.startFlush();
  expect(taken(disk, VALUES)).toEqual({ crash: "01", live: "1" });
});

test("a write under way may be there or not", () => {
  const disk = oneSector();
  disk.startWrite(0, filled(1));
  expect(taken(disk, VALUES)).toEqual({ crash: "01", live: "01" });
});

test("of two writes at once either may stay, even after a flush", () => {
  const disk = oneSector();
  const first = disk.startWrite(0, filled(1));
  const second = disk.startWrite(0, filled(2));
  disk.finish(first);
  disk.finish(second);
  disk.flush();
  expect(taken(disk, VALUES)).toEqual({ crash: "12", live: "12" });
});

test("a discard leaves what was there or zeroes, until it is written and flushed", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  disk.flush();
  disk.discard(0, SECTOR);
  disk.flush();
  expect(taken(disk, VALUES)).toEqual({ crash: "01", live: "01" });
  disk.write(0, filled(2));
  expect(taken(disk, VALUES)).toEqual({ crash: "012", live: "2" });
  disk.flush();
  expect(taken(disk, VALUES)).toEqual({ crash: "2", live: "2" });
});

test("zeroing replaces like a write", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  disk.flush();
  disk.writeZeroes(0, SECTOR);
  expect(taken(disk, VALUES)).toEqual({ crash: "01", live: "0" });
});

test("a write that failed may be there or not, and is gone after the next flushed write", () => {
  const disk = oneSector();
  disk.fail(disk.startWrite(0, filled(1)));
  disk.flush();
  expect(taken(disk, VALUES)).toEqual({ crash: "01", live: "01" });
  disk.write(0, filled(2));
  disk.flush();
  expect(taken(disk, VALUES)).toEqual({ crash: "2", live: "2" });
});

test("a write with fua is durable when it ends", () => {
  const disk = oneSector();
  disk.finish(disk.startWrite(0, filled(1), { fua: true }));
  expect(taken(disk, VALUES)).toEqual({ crash: "1", live: "1" });
});

test("checkCrash() at an earlier time must know only what had happened then", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  const then = disk.now;
  disk.write(0, filled(2));
  disk.flush();
  disk.checkCrash(filled(0), then);
  disk.checkCrash(filled(1), then);
  expect(() => disk.checkCrash(filled(2), then)).toThrow(ReferenceMismatchError);
});

test("a sector that mixes old and new must be a third value", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  const mixed = filled(1);
  mixed.fill(0, 256);
  expect(() => disk.checkCrash(mixed)).toThrow("bytes that nobody wrote here");
});

test("the error must say what was found, and what was allowed", () => {
  const disk = new ReferenceDisk({ lengthBytes: 3 * SECTOR });
  disk.write(0, stampedBytes(1, 0, SECTOR));
  disk.write(0, stampedBytes(2, 0, SECTOR));
  disk.write(2 * SECTOR, stampedBytes(3, 2 * SECTOR, SECTOR));
  disk.flush();
  const found = new Uint8Array(3 * SECTOR);
  found.set(stampedBytes(1, 0, SECTOR));
  found.set(stampedBytes(3, 2 * SECTOR, SECTOR), SECTOR);
  expect(() => disk.checkCrash(found, undefined, "here")).toThrow(
    [
      "here",
      "  sector 0 (offset 0x0) holds that of guest write 1 (0x0, 512 bytes), which is out of date; " +
        "allowed: guest write 2 (0x0, 512 bytes)",
      "  sector 1 (offset 0x200) holds data with tag 3 for sector 2; allowed: initial content",
      "  sector 2 (offset 0x400) holds zeroes; allowed: guest write 3 (0x400, 512 bytes)",
    ]
      .join("\n")
      .replace("holds zeroes", "holds that of initial content, which is out of date"),
  );
});

test("stampedBytes() must be read back by readStamp(), sector by sector", () => {
  const bytes = stampedBytes(77, 1024, 1024);
  expect(readStamp(bytes)).toEqual({ tag: 77, sector: 2 });
  expect(readStamp(bytes.subarray(512))).toEqual({ tag: 77, sector: 3 });
  expect(readStamp(new Uint8Array(512))).toBeUndefined();
});

/** Which of these fills a read over a stretch of time may return. */
function readable(disk: ReferenceDisk, start: number, values: readonly number[]): string {
  const isTaken = (value: number): boolean => {
    try {
      disk.checkRead(0, filled(value), start);
      return true;
    } catch (error) {
      expect(error).toBeInstanceOf(ReferenceMismatchError);
      return false;
    }
  };
  return values.filter(isTaken).join("");
}

test("checkRead() must allow what was there at some moment of the read, and nothing older or newer", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  disk.write(0, filled(2));
  const start = disk.now;
  const write = disk.startWrite(0, filled(3));
  const end = disk.now;
  disk.finish(write);
  expect(readable(disk, start, VALUES)).toBe("23");
  expect(() => disk.checkRead(0, filled(3), start, start)).toThrow(ReferenceMismatchError);
  expect(() => disk.checkRead(0, filled(2), start, end)).not.toThrow();
  expect(readable(disk, disk.now, VALUES)).toBe("3");
});

test("checkRead() must not take a write with fua that ends during the read for one that came before it", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  const start = disk.now;
  disk.finish(disk.startWrite(0, filled(2), { fua: true }));
  expect(readable(disk, start, VALUES)).toBe("12");
});

test("a write of a part of a sector must leave the rest as it was, byte by byte", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  disk.write(100, filled(2).subarray(0, 50));
  const expected = filled(1);
  expected.fill(2, 100, 150);
  disk.check(expected);
  expect(() => disk.check(filled(1))).toThrow(ReferenceMismatchError);
  expect(() => disk.check(filled(2))).toThrow(ReferenceMismatchError);
  disk.checkCrash(filled(1));
  disk.checkRead(90, expected.subarray(90, 160), disk.now);
  expect(() => disk.checkRead(90, filled(1).subarray(90, 160), disk.now)).toThrow(
    ReferenceMismatchError,
  );
  disk.flush();
  expect(() => disk.checkCrash(filled(1))).toThrow(ReferenceMismatchError);
  disk.write(0, filled(3));
  disk.check(filled(3));
  expect(() => disk.check(expected)).toThrow(ReferenceMismatchError);
});

test("startGrow() must allow both lengths until a flush, and zeroes in what is new", () => {
  const disk = oneSector();
  disk.write(0, filled(1));
  disk.flush();
  disk.finish(disk.startGrow(2 * SECTOR));
  const longer = new Uint8Array([...filled(1), ...filled(0)]);
  disk.check(longer);
  disk.checkCrash(longer);
  disk.checkCrash(filled(1));
  expect(() => disk.check(filled(1))).toThrow("0x200 bytes long; allowed: 0x400");
  expect(() => disk.check(new Uint8Array([...filled(1), ...filled(2)]))).toThrow("sector 1");
  disk.flush();
  expect(() => disk.checkCrash(filled(1))).toThrow("bytes long");
  disk.write(SECTOR, filled(2));
  disk.check(new Uint8Array([...filled(1), ...filled(2)]));
});

test("cut() must keep what is known of the sectors that stay, and share nothing from then on", () => {
  const disk = new ReferenceDisk({ lengthBytes: 2 * SECTOR });
  disk.write(0, filled(1));
  disk.flush();
  disk.write(0, filled(2));
  const shorter = disk.cut(SECTOR);
  expect(taken(shorter, VALUES)).toEqual({ crash: "12", live: "2" });
  shorter.write(0, filled(3));
  shorter.flush();
  expect(taken(shorter, VALUES)).toEqual({ crash: "3", live: "3" });
  const whole = new Uint8Array(2 * SECTOR).fill(2, 0, SECTOR);
  expect(() => disk.check(whole)).not.toThrow();
  expect(() => shorter.check(whole)).toThrow(ReferenceMismatchError);
});

test("cut() must not bring back what was cut off when the disk grows again", () => {
  const disk = new ReferenceDisk({
    lengthBytes: 2 * SECTOR,
    content: new Uint8Array(1024).fill(9),
  });
  const shorter = disk.cut(SECTOR);
  shorter.finish(shorter.startGrow(2 * SECTOR));
  const grown = new Uint8Array(2 * SECTOR).fill(9, 0, SECTOR);
  expect(() => shorter.check(grown)).not.toThrow();
  expect(() => shorter.check(grown.fill(9))).toThrow(ReferenceMismatchError);
});
