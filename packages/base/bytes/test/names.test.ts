import { expect, test } from "vitest";
import { decodeName, encodeName, hasOddBytes } from "../src/index.js";

const bytesOf = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes);

test.each([
  ["text", [0x61, 0xc3, 0xa9, 0xf0, 0x9f, 0x98, 0x80], "aé😀"],
  ["a byte that begins nothing", [0x61, 0xff, 0x62], "a\udcffb"],
  ["a sequence that is cut off", [0xc3], "\udcc3"],
  ["a sequence that goes wrong", [0xe2, 0x82, 0x61], "\udce2\udc82a"],
  ["a surrogate as bytes", [0xed, 0xa0, 0x80], "\udced\udca0\udc80"],
  ["more bytes than needed", [0xc0, 0xaf], "\udcc0\udcaf"],
  ["the replacement character itself", [0xef, 0xbf, 0xbd], "\ufffd"],
  ["a byte order mark", [0xef, 0xbb, 0xbf, 0x61], "\ufeffa"],
  ["nothing", [], ""],
])("decodeName() must lose nothing of %s", (_, bytes, name) => {
  expect(decodeName(bytesOf(...bytes))).toBe(name);
  expect([...encodeName(name)]).toEqual(bytes);
  expect(hasOddBytes(name)).toBe(Buffer.compare(Buffer.from(name), Uint8Array.from(bytes)) !== 0);
});

test("names of random bytes must come back, and differ when the bytes do", () => {
  const seen = new Map<string, string>();
  let state = 1;
  for (let run = 0; run < 5_000; run++) {
    const bytes = Uint8Array.from({ length: 1 + (run % 6) }, () => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      // Leading and following bytes of UTF-8 more often than chance has them.
      return [0x61, 0x80, 0xbf, 0xc3, 0xe2, 0xed, 0xf0, state >>> 24][(state >>> 16) % 8] as number;
    });
    const name = decodeName(bytes);
    expect([...encodeName(name)]).toEqual([...bytes]);
    expect(seen.get(name) ?? bytes.join()).toBe(bytes.join());
    seen.set(name, bytes.join());
  }
});

test("encodeName() must take any string", () => {
  expect([...encodeName("\ud800")]).toEqual([0xef, 0xbf, 0xbd]);
  expect([...encodeName("\udc7f")]).toEqual([0xef, 0xbf, 0xbd]);
});
