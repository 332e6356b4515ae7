import { expect, test } from "vitest";
import { parseSnapshotParam } from "../src/index.js";

test.each([
  ["first", "first"],
  ["1", "1"],
  ["", ""],
  ["a,b=c", "a,b=c"],
  ["snapshot.id=1", { id: "1" }],
  ["snapshot.name=a,,b", { name: "a,b" }],
  ["snapshot.id=1,snapshot.name=", { id: "1", name: "" }],
])("parseSnapshotParam() must read %j", (text, selector) => {
  expect(parseSnapshotParam(text)).toEqual(selector);
});

test("parseSnapshotParam() must refuse another key, by name", () => {
  expect(() => parseSnapshotParam("snapshot.tag=1")).toThrow("Invalid parameter 'snapshot.tag'");
});
