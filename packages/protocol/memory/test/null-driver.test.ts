import { IoVector } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { nullDriver, openNull } from "../src/index.js";

describe("NullDriver", () => {
  test("readv() must give zeroes with read-zeroes, and leave the buffer alone without", () => {
    const target = new Uint8Array(4).fill(9);
    openNull().readv(0, IoVector.of(target));
    expect([...target]).toEqual([9, 9, 9, 9]);
    openNull({ readZeroes: true }).readv(0, IoVector.of(target));
    expect([...target]).toEqual([0, 0, 0, 0]);
  });

  test("writev() must be taken and forgotten", () => {
    const disk = openNull({ readZeroes: true, lengthBytes: 4 });
    disk.writev(0, IoVector.of(Uint8Array.of(1, 2, 3, 4)));
    const target = IoVector.allocate(4);
    disk.readv(0, target);
    expect([...target.toBytes()]).toEqual([0, 0, 0, 0]);
    expect(disk.lengthBytes).toBe(4);
  });

  test("a size must default to QEMU's gibibyte", () => {
    expect(openNull().lengthBytes).toBe(2 ** 30);
    expect(nullDriver.openOptions["size"]?.default).toBe(2 ** 30);
  });

  test("parseFilename() must take null-co:// and nothing else", () => {
    expect(nullDriver.parseFilename?.("null-co://")).toEqual({});
    expect(() => nullDriver.parseFilename?.("null-co://x")).toThrow("null-co://");
  });
});
