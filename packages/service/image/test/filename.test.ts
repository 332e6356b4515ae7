import { expect, test } from "vitest";
import { rawDriver } from "@blocklayer/raw";
import { nameOfOptions, parseFilename, resolveName } from "../src/open/filename.js";
import { Files } from "./support/files.js";

const nbd = { ...rawDriver, name: "nbd", kind: "protocol" as const, protocolPrefixes: ["nbd:"] };
const drivers = [new Files().driver, rawDriver, nbd];

test("parseFilename() must take a name without a prefix, or with `file:`, for a path", () => {
  expect(parseFilename("a/b:c.img", drivers)).toEqual({ driver: "file", filename: "a/b:c.img" });
  expect(parseFilename("file:b:c.img", drivers)).toEqual({ driver: "file", filename: "b:c.img" });
  expect(parseFilename("/x,y", drivers)).toEqual({ driver: "file", filename: "/x,y" });
});

test("parseFilename() must give a protocol's name to the protocol", () => {
  expect(parseFilename("nbd://host/x", drivers)).toMatchObject({ driver: "nbd" });
});

test("parseFilename() must refuse a prefix that nobody knows, and say how to write a path", () => {
  expect(() => parseFilename("vm:disk.img", drivers)).toThrow(/'\.\/vm:disk\.img'/);
  expect(() => parseFilename("", drivers)).toThrow(/empty/);
});

test("parseFilename() must read json: names, nested and dotted alike", () => {
  const nested = parseFilename('json:{"driver":"raw","file":{"driver":"file","filename":"x"}}', []);
  const dotted = parseFilename(
    'json:{"driver":"raw","file.driver":"file","file.filename":"x"}',
    [],
  );
  expect(nested).toEqual({ driver: "raw", file: { driver: "file", filename: "x" } });
  expect(dotted).toEqual(nested);
  expect(() => parseFilename("json:{", [])).toThrow(expect.objectContaining({ code: "EINVAL" }));
  expect(() => parseFilename("json:[1]", [])).toThrow(expect.objectContaining({ code: "EINVAL" }));
});

test.each([
  ["sub/s.qcow2", "../b.qcow2", "sub/../b.qcow2"],
  ["s.qcow2", "b.qcow2", "b.qcow2"],
  ["/a/s.qcow2", "b.qcow2", "/a/b.qcow2"],
  ["/a/s.qcow2", "/b.qcow2", "/b.qcow2"],
  ["file:sub/s.qcow2", "b.qcow2", "sub/b.qcow2"],
  ["sub/s.qcow2", "nbd://host/b", "nbd://host/b"],
  ["http://host/a/s.qcow2?x=/y", "b.qcow2", "http://host/a/b.qcow2"],
  ["http:s", "b", "http:b"],
  ["sub/s.qcow2", "json:{}", "json:{}"],
])("resolveName(%s, %s) must be %s, as in QEMU", (image, name, resolved) => {
  expect(resolveName(image, name)).toBe(resolved);
});

test("resolveName() must refuse a relative name in an image without a folder", () => {
  expect(() => resolveName('json:{"driver":"x"}', "b")).toThrow(/has no folder/);
});

test("nameOfOptions() must find the innermost file name", () => {
  const file = { driver: "file", filename: "x" };
  expect(nameOfOptions({ driver: "qcow2", file: { driver: "raw", file } })).toBe("x");
  expect(nameOfOptions({ driver: "null-co" })).toBe('json:{"driver":"null-co"}');
});
