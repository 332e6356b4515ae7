import { IoVector } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import { type BlockDriver, directChild, UNLIMITED } from "../src/index.js";

/** A driver that writes down what reaches it. */
function recorder(calls: unknown[]): BlockDriver {
  const note =
    (name: string) =>
    (...given: unknown[]): void => {
      calls.push([name, ...given]);
    };
  const status = { lengthBytes: 1, allocated: true, data: true, zero: false, compressed: false };
  return {
    driverName: "recorder",
    lengthBytes: 7,
    limits: UNLIMITED,
    capabilities: {
      write: true,
      compressedWrite: false,
      writeZeroes: true,
      discard: true,
      fua: false,
      truncate: true,
      backing: false,
    },
    readv: note("readv"),
    writev: note("writev"),
    writeZeroes: note("writeZeroes"),
    discard: note("discard"),
    blockStatus: (...given) => {
      calls.push(["blockStatus", ...given]);
      return status;
    },
    truncate: note("truncate"),
    flushToOs: note("flushToOs"),
    flushToDisk: note("flushToDisk"),
    reopen: note("reopen"),
    close: note("close"),
  };
}

test("directChild() must hand every request on as it came, and flush in two steps", async () => {
  const calls: unknown[] = [];
  const driver = recorder(calls);
  const child = directChild(driver);
  const vector = IoVector.allocate(1);
  const options = { fua: true };
  await child.readv(1, vector, {});
  await child.writev(2, vector, options);
  await child.writeZeroes(3, 4, options);
  await child.discard(5, 6, {});
  await child.blockStatus(7, 8, { wantZero: true });
  await child.truncate(9, { preallocation: "full" });
  await child.flush();
  expect(calls).toEqual([
    ["readv", 1, vector, {}],
    ["writev", 2, vector, options],
    ["writeZeroes", 3, 4, options],
    ["discard", 5, 6, {}],
    ["blockStatus", 7, 8, { wantZero: true }],
    ["truncate", 9, { preallocation: "full" }],
    ["flushToOs"],
    ["flushToDisk"],
  ]);
  expect(child).toMatchObject({ nodeName: "recorder", lengthBytes: 7, limits: UNLIMITED });
});

test("directChild() must not sync when the flush to the OS fails", async () => {
  const calls: unknown[] = [];
  const driver = recorder(calls);
  driver.flushToOs = () => Promise.reject(new Error("full"));
  await expect(async () => directChild(driver).flush()).rejects.toThrow("full");
  expect(calls).toEqual([]);
});
