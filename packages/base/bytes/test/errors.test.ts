import { expect, test } from "vitest";
import {
  assert,
  AssertionError,
  BlockError,
  CorruptImageError,
  errnoText,
  hasCode,
  UnsupportedError,
} from "../src/index.js";

test("BlockError must carry its code, its site and its cause", () => {
  const cause = new Error("disk on fire");
  const details = { op: "read", node: "disk", offset: 512, length: 1024, cause };
  const error = new BlockError("EIO", "read failed", details);
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ code: "EIO", name: "BlockError", ...details });
  expect(hasCode(error, "EIO")).toBe(true);
  expect(hasCode(error, "ENOSPC")).toBe(false);
  expect(hasCode({ code: "EIO" }, "EIO")).toBe(false);
  expect("cause" in new BlockError("EIO", "plain")).toBe(false);
});

test("CorruptImageError must begin with the thing and end with the rule", () => {
  const rule = "entry 17 is unaligned";
  const error = new CorruptImageError({ structure: "L2 table", hostOffset: 0x50000, rule });
  expect(error.message).toBe("L2 table at host offset 0x50000: entry 17 is unaligned");
  expect(error).toMatchObject({
    code: "ECORRUPT",
    structure: "L2 table",
    hostOffset: 0x50000,
    rule,
  });
  expect(new CorruptImageError({ structure: "header", rule: "too short" }).message).toBe(
    "header: too short",
  );
});

test("UnsupportedError must be a BlockError with the code ENOTSUP", () => {
  expect(new UnsupportedError("no zstd yet")).toMatchObject({ code: "ENOTSUP" });
  expect(new UnsupportedError("no zstd yet")).toBeInstanceOf(BlockError);
});

test("assert() must throw an AssertionError, which is no BlockError", () => {
  expect(() => assert(true, "true is true")).not.toThrow();
  expect(() => assert(false, "1 is 2")).toThrow(AssertionError);
  expect(() => assert(false, "1 is 2")).not.toThrow(BlockError);
});

test("errnoText() must give the C library's words, and a name it does not know unchanged", () => {
  expect(errnoText("ENOSPC")).toBe("No space left on device");
  expect(errnoText("EWHAT")).toBe("EWHAT");
  expect(errnoText("toString")).toBe("toString");
});
