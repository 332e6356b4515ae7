import { Random } from "@blocklayer/sim";
import { expect, test } from "vitest";
import { firstDifference } from "../src/compare/same-bytes.js";

test("firstDifference() must find the first byte that differs, with and without the runtime's memcmp", () => {
  const random = new Random(1);
  for (let run = 0; run < 2000; run++) {
    const length = random.below(3000);
    const skew = random.below(8);
    const a = new Uint8Array(length + 8).subarray(skew, skew + length);
    const b = new Uint8Array(length + 8).subarray(0, length);
    let expected = length;
    for (let places = random.below(4); places > 0 && length > 0; places--) {
      const place = random.below(length);
      b[place] = 1;
      expected = Math.min(expected, place);
    }
    expect(firstDifference(a, b)).toBe(expected);
    expect(firstDifference(a, b, null)).toBe(expected);
  }
});
