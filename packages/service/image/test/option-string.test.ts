import { expect, test } from "vitest";
import { parseKeyValues, parseOptionString } from "../src/index.js";

test("parseKeyValues() must split at single commas and keep doubled ones", () => {
  expect(parseKeyValues("a=1,b=x,,y=z,c")).toEqual([
    ["a", "1"],
    ["b", "x,y=z"],
    ["c", "on"],
  ]);
  expect(parseKeyValues("")).toEqual([]);
  expect(parseKeyValues("a=,,")).toEqual([["a", ","]]);
});

test("parseKeyValues() must give a first part without a key the implied one", () => {
  expect(parseKeyValues("disk.img,x=1", "filename")).toEqual([
    ["filename", "disk.img"],
    ["x", "1"],
  ]);
});

test.each(["=1", "a=1,=2", "x".repeat(70_000)])(
  "parseKeyValues() must refuse what has an empty key or is too long (%#)",
  (text) => {
    expect(() => parseKeyValues(text)).toThrow(expect.objectContaining({ code: "EINVAL" }));
  },
);

test("parseOptionString() must let later options replace earlier ones", () => {
  expect(parseOptionString(["cluster_size=4k,compat=1.1", "cluster_size=2M"])).toEqual({
    cluster_size: "2M",
    compat: "1.1",
  });
});

test("parseOptionString() must keep keys that objects have themselves as plain keys", () => {
  const options = parseOptionString("__proto__=1,constructor=2");
  expect(Object.entries(options)).toEqual([
    ["__proto__", "1"],
    ["constructor", "2"],
  ]);
});
