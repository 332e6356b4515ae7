import { BlockError } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import {
  booleanOption,
  numberOption,
  type OptionSchema,
  parseOptions,
  stringOption,
} from "../src/index.js";

const schema: OptionSchema = {
  cluster_size: { type: "size", help: "cluster size", default: 65536 },
  refcount_bits: { type: "integer", help: "width of a refcount" },
  lazy_refcounts: { type: "boolean", help: "postpone refcounts", default: false },
  backing_file: { type: "string", help: "backing file" },
  compat: { type: "choice", choices: ["0.10", "1.1"], help: "version", default: "1.1" },
};

test("parseOptions() must fill in defaults and leave the rest absent", () => {
  expect(parseOptions(schema, {}, "qcow2")).toEqual({
    cluster_size: 65536,
    refcount_bits: undefined,
    lazy_refcounts: false,
    backing_file: undefined,
    compat: "1.1",
  });
});

test("parseOptions() must read words as qemu-img does, and take values of the right type", () => {
  const words = parseOptions(
    schema,
    { cluster_size: "2M", refcount_bits: "16", lazy_refcounts: "on", compat: "0.10" },
    "qcow2",
  );
  expect(words).toMatchObject({
    cluster_size: 2097152,
    refcount_bits: 16,
    lazy_refcounts: true,
    compat: "0.10",
  });
  const typed = parseOptions(schema, { cluster_size: 512, lazy_refcounts: true }, "qcow2");
  expect(typed).toMatchObject({ cluster_size: 512, lazy_refcounts: true });
});

test.each([
  [{ cluster: 1 }, "qcow2: option 'cluster' is unknown; known are: cluster_size, refcount_bits"],
  [{ toString: "x" }, "option 'toString' is unknown"],
  [{ cluster_size: "64x" }, "qcow2: option 'cluster_size': '64x' is not a size"],
  [{ cluster_size: -1 }, "must be a whole number, not '-1'"],
  [{ refcount_bits: "" }, "must be a whole number, not ''"],
  [{ refcount_bits: 1.5 }, "must be a whole number, not '1.5'"],
  [{ lazy_refcounts: "maybe" }, "must be 'on' or 'off', not 'maybe'"],
  [{ backing_file: 7 }, "must be a string"],
  [{ compat: "2.0" }, "must be one of 0.10, 1.1, not '2.0'"],
])("parseOptions() must refuse %o and say why", (given, message) => {
  const parse = () => parseOptions(schema, given, "qcow2");
  expect(parse).toThrow(BlockError);
  expect(parse).toThrow(message);
});

test("numberOption() must insist, booleanOption() and stringOption() must not", () => {
  const values = parseOptions(schema, {}, "qcow2");
  expect(numberOption(values, "cluster_size")).toBe(65536);
  expect(() => numberOption(values, "refcount_bits")).toThrow("option 'refcount_bits' is required");
  expect(booleanOption(values, "lazy_refcounts")).toBe(false);
  expect(stringOption(values, "backing_file")).toBeUndefined();
  expect(stringOption(values, "compat")).toBe("1.1");
});
