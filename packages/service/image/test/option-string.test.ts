import { expect, test } from "vitest";
import { parseOptionString } from "../src/index.js";

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
