import { constants } from "node:os";
import { describe, expect, test } from "vitest";
import { errnoOf, fileError, openError } from "../src/file-error.js";

const file = { filename: "disk.img", nodeName: "node0" };

describe("errnoOf()", () => {
  test("must name numbers of either sign, with the usual one of two names", () => {
    expect(errnoOf(constants.errno.EAGAIN)).toBe("EAGAIN");
    expect(errnoOf(-constants.errno.ENOTSUP)).toBe("ENOTSUP");
    expect(errnoOf(99999)).toBe("EIO");
    expect(errnoOf(Object.assign(new Error("x"), { code: "EDQUOT" }))).toBe("EDQUOT");
    expect(errnoOf(undefined)).toBe("EIO");
  });
});

describe("fileError()", () => {
  test("must tell the operation, the range, the file and the cause", () => {
    const cause = Object.assign(new Error("x"), { code: "EIO" });
    expect(fileError(cause, "read", file, 4096, 512)).toMatchObject({
      code: "EIO",
      op: "read",
      node: "node0",
      offset: 4096,
      length: 512,
      cause,
      message: "'disk.img': read of 512 bytes at offset 0x1000: Input/output error",
    });
    expect(fileError(cause, "flush", file).message).toBe("'disk.img': flush: Input/output error");
  });

  test("must give unknown names the code EIO, and keep the name in the message", () => {
    const failure = fileError({ code: "ESTALE" }, "read", file, 0, 1);
    expect(failure.code).toBe("EIO");
    expect(failure.message).toContain("ESTALE");
    expect(openError({ code: "ENXIO" }, file).code).toBe("ENODEV");
  });
});
