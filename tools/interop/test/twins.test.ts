/** Parts of the differential test that could be wrong without its noticing. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { qemuImg, tryProgram } from "../src/programs.mjs";
import { damage } from "../src/twins/damage.mjs";
import { kindLines, kindsOf } from "../src/twins/kinds.mjs";
import { LOOSE, Looseness } from "../src/twins/looseness.mjs";
import { describeWithQemu, withFolder } from "./support.js";

describe("kindsOf()", () => {
  test("must name the command, its flags, and the options of a new image", () => {
    const img = (...words: string[]) => kindsOf({ does: "img", words });
    expect(img("create", "-q", "-o", "compat=0.10,data_file=a", "-b", "b", "@a")).toEqual([
      "create",
      "-o compat=0.10",
      "-o data_file",
      "-o backing_file",
    ]);
    expect(img("resize", "--shrink", "@a", "-512")).toEqual(["resize", "resize --shrink"]);
    expect(img("check", "-r", "all", "@a")).toEqual(["check -r all"]);
    const op = { kind: "unmap" as const, offset: 0, length: 1, pattern: 0, noFallback: true };
    expect(kindsOf({ does: "io", image: "@a", op })).toEqual(["io unmap", "io unmap, no fallback"]);
  });

  test("kindLines() must count what succeeded and what was refused", () => {
    const kinds = new Map([
      ["rebase", { succeeded: 2, refused: 1 }],
      ["commit", { succeeded: 3, refused: 0 }],
    ]);
    expect(kindLines(kinds)).toEqual(["commit: 3", "rebase: 2, and 1 that both refused"]);
  });
});

describe("Looseness", () => {
  test("an image must be as loose as what it shows, and as what it was copied from", () => {
    const loose = new Looseness();
    expect(loose.of("@top.qcow2", true)).toBe(LOOSE.strict);
    loose.afterCommand(["convert", "@top.qcow2", "@x.qcow2"]);
    expect(loose.of("@x.qcow2", false)).toBe(LOOSE.placed);
    loose.afterCommand(["commit", "@top.qcow2"]);
    expect(loose.of("@top.qcow2", true)).toBe(LOOSE.unknown);
    expect(loose.of("@top.qcow2", false)).toBe(LOOSE.placed);
    loose.afterCommand(["convert", "@top.qcow2", "@x.qcow2"]);
    loose.afterAdoption("@x.qcow2", "@top.qcow2");
    expect(loose.of("@top.qcow2", false)).toBe(LOOSE.unknown);
  });

  test("zeroes must be loose only where there is a backing file or are subclusters", () => {
    const loose = new Looseness();
    const zeroes = { kind: "zeroes" as const, offset: 0, length: 512, pattern: 0 };
    loose.afterRequest("@top.qcow2", zeroes, 3);
    expect(loose.of("@top.qcow2", false)).toBe(LOOSE.strict);
    loose.afterCommand(["create", "-b", "base.raw", "-F", "raw", "@top.qcow2"]);
    loose.afterRequest("@top.qcow2", zeroes, 3);
    expect(loose.of("@top.qcow2", false)).toBe(LOOSE.zeroed);
    loose.afterRequest("@top.qcow2", zeroes, 2);
    expect(loose.of("@top.qcow2", false)).toBe(LOOSE.unknown);
  });
});

describeWithQemu("damage()", () => {
  test.each([1, 4, 16, 64])("must be what qemu-img check finds, refcount_bits=%d", (bits) =>
    withFolder(async (folder) => {
      const image = join(folder, "a.qcow2");
      const make = ["create", "-q", "-f", "qcow2", "-o", `refcount_bits=${bits}`, image, "1M"];
      const verdict = async (what: "leak" | "lost" | "dirty", at: number) => {
        await qemuImg(...make);
        const isDone = damage(image, what, at);
        return { isDone, status: (await tryProgram("qemu-img", ["check", image])).status };
      };
      expect(await verdict("lost", 3)).toEqual({ isDone: true, status: 2 });
      // With one bit no refcount can be higher than 1, and all clusters are in use.
      const leak = bits === 1 ? { isDone: false, status: 0 } : { isDone: true, status: 3 };
      expect(await verdict("leak", 2)).toEqual(leak);
      expect(await verdict("dirty", 0)).toEqual({ isDone: true, status: 0 });
      // The dirty bit is bit 0 of the incompatible features, the last of their bytes.
      expect(readFileSync(image)[79]).toBe(1);
      await qemuImg("check", "-r", "leaks", image);
      expect(readFileSync(image)[79]).toBe(0);
    }),
  );
});
