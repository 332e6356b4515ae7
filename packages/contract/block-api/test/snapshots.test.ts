import { describe, expect, test } from "vitest";
import { findSnapshot, snapshotText } from "../src/index.js";

const LIST = [
  { id: "1", name: "2" },
  { id: "2", name: "1" },
  { id: "3", name: "2" },
];

describe("findSnapshot()", () => {
  test.each([
    ["1", "1"],
    ["2", "2"],
    [{ id: "3" }, "3"],
    [{ name: "1" }, "2"],
    [{ name: "2" }, "1"],
    [{ id: "3", name: "2" }, "3"],
    [{ id: "2", name: "2" }, undefined],
    ["4", undefined],
    [{}, undefined],
    ["", undefined],
  ])("must find for %j the one with id %j", (which, id) => {
    expect(findSnapshot(LIST, which)?.id).toBe(id);
  });

  test("must take a name where no id fits", () => {
    expect(findSnapshot([...LIST, { id: "4", name: "n" }], "n")?.id).toBe("4");
  });
});

test("snapshotText() must name all that was asked for", () => {
  expect(snapshotText("a")).toBe("'a'");
  expect(snapshotText({ id: "1", name: "a" })).toBe("id '1', name 'a'");
});
