import { describe, expect, it } from "vitest";
import {
  flattenOptions,
  parseImageOptions,
  parseJsonFilename,
  splitOptions,
  unflattenOptions,
} from "../src/options.js";

describe("unflattenOptions", () => {
  it("must nest child keys and leave a driver's own dots alone", () => {
    expect(
      unflattenOptions({
        driver: "qcow2",
        "file.driver": "file",
        "file.cache.direct": "on",
        "backing.file.filename": "base.img",
        "cache.direct": true,
      }),
    ).toEqual({
      driver: "qcow2",
      file: { driver: "file", "cache.direct": "on" },
      backing: { file: { filename: "base.img" } },
      "cache.direct": true,
    });
  });

  it("must give dots to the nested options of a driver", () => {
    expect(unflattenOptions({ driver: "nbd", server: { host: "h", port: "1" } })).toEqual({
      driver: "nbd",
      "server.host": "h",
      "server.port": "1",
    });
  });

  it("must keep null and names", () => {
    expect(unflattenOptions({ file: "node0", backing: null })).toEqual({
      file: "node0",
      backing: null,
    });
  });

  it("must refuse a child that is given as a whole and in parts", () => {
    expect(() => unflattenOptions({ file: "node0", "file.driver": "file" })).toThrow("'file'");
  });

  it("must refuse an option that is given in both spellings", () => {
    expect(() => unflattenOptions({ file: { driver: "a" }, "file.driver": "b" })).toThrow(
      "'file.driver' is given twice",
    );
  });

  it("must not be led to the prototype of objects", () => {
    const options = unflattenOptions(JSON.parse('{"__proto__": {"driver": "evil"}}'));
    expect(options.driver).toBeUndefined();
    expect(Object.keys(options)).toEqual(["__proto__.driver"]);
  });

  it("must refuse to nest without end", () => {
    const key = `${"backing.".repeat(300)}driver`;
    expect(() => unflattenOptions({ [key]: "x" })).toThrow("nests deeper");
  });
});

describe("flattenOptions", () => {
  it("must be undone by unflattenOptions", () => {
    const nested = { driver: "a", file: { driver: "b", filename: "c" }, backing: null };
    expect(unflattenOptions(flattenOptions(nested))).toEqual(nested);
  });
});

describe("parseImageOptions", () => {
  it("must read pairs, doubled commas, and bare keys", () => {
    expect(parseImageOptions("driver=qcow2,file.filename=a,,b=c.img,read-only")).toEqual({
      driver: "qcow2",
      file: { filename: "a,b=c.img" },
      "read-only": "on",
    });
  });

  it("must refuse a repeated key", () => {
    expect(() => parseImageOptions("driver=a,driver=b")).toThrow("'driver' is given twice");
  });

  it("must refuse a pair without a name", () => {
    expect(() => parseImageOptions("=x")).toThrow("a key is missing");
  });
});

describe("parseJsonFilename", () => {
  it("must read an object", () => {
    expect(parseJsonFilename('json:{"driver":"raw","file.filename":"a"}')).toEqual({
      driver: "raw",
      file: { filename: "a" },
    });
  });

  it("must leave other names alone", () => {
    expect(parseJsonFilename("disk.json")).toBeUndefined();
  });

  it("must refuse what is no object", () => {
    expect(() => parseJsonFilename("json:[1]")).toThrow("no JSON object");
    expect(() => parseJsonFilename("json:{")).toThrow("no JSON");
  });
});

describe("splitOptions", () => {
  it("must take an empty backing for none", () => {
    expect(splitOptions({ backing: "" }).backing).toBeNull();
    expect(splitOptions({}).backing).toBeUndefined();
  });

  it("must refuse keys of the wrong type", () => {
    expect(() => splitOptions({ "read-only": "maybe" })).toThrow("'read-only'");
    expect(() => splitOptions(JSON.parse('{"driver": 1}'))).toThrow("'driver' must be a string");
    expect(() => splitOptions(JSON.parse('{"file": null}'))).toThrow("'file'");
  });
});
