import { expect, test } from "vitest";
import { parseKeyValues } from "../src/index.js";

test("parseKeyValues() must split at single commas and keep doubled ones", () => {
  expect(parseKeyValues("a=1,b=x,,y=z,c")).toEqual([
    ["a", "1"],
    ["b", "x,y=z"],
    ["c", "on"],
  ]);
  expect(parseKeyValues("")).toEqual([]);
  expect(parseKeyValues("a=1,")).toEqual([["a", "1"]]);
  expect(parseKeyValues("a=,,")).toEqual([["a", ","]]);
});

test.each(["=1", "a=1,=2", ",a=1", "x".repeat(70_000)])(
  "parseKeyValues() must refuse what has an empty key or is too long (%#)",
  (text) => {
    expect(() => parseKeyValues(text)).toThrow(expect.objectContaining({ code: "EINVAL" }));
  },
);
