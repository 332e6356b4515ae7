/** How `blk io` reads words and prints numbers, without an image. */
import { describe, expect, test } from "vitest";
import { CommandWords, readOptions, splitWords } from "../src/io/command-words.js";
import { CommandError, reasonOf, storyOf } from "../src/io/errors.js";
import { patternOf, requestLengthOf, sizeOf, sizeText } from "../src/io/numbers.js";
import { dumpText, reportText } from "../src/io/report.js";
import { BlockError, CorruptImageError } from "@blocklayer/bytes";

describe("words", () => {
  test("splitWords() must cut at blanks only", () => {
    expect(splitWords("  read  -P 1 0\t1k ")).toEqual(["read", "-P", "1", "0\t1k"]);
    expect(splitWords("   ")).toEqual([]);
  });

  test("readOptions() must find options anywhere, joined, and with their values", () => {
    const words = readOptions("write", ["0", "-zf", "1k", "-P7", "-s", "-x"], "zfP:s:", "usage");
    expect(words).toBeInstanceOf(CommandWords);
    expect(words.operands).toEqual(["0", "1k"]);
    expect([words.has("z"), words.has("f"), words.has("q")]).toEqual([true, true, false]);
    expect([words.value("P"), words.value("s"), words.value("z")]).toEqual(["7", "-x", undefined]);
  });

  test("readOptions() must end at -- and take a lone - as a word", () => {
    const words = readOptions("read", ["-", "--", "-q", "--"], "q", "usage");
    expect(words.operands).toEqual(["-", "-q", "--"]);
    expect(words.has("q")).toBe(false);
  });

  test.each([
    ["-x", "read: invalid option -- 'x'"],
    ["-:", "read: invalid option -- ':'"],
    ["-P", "read: option requires an argument -- 'P'"],
  ])("readOptions(%s) must be refused with the usage", (word, complaint) => {
    expect(() => readOptions("read", [word], "qP:", "usage")).toThrow(
      expect.objectContaining({ message: "usage", complaint }),
    );
  });
});

describe("numbers", () => {
  test.each([
    [0, "0 bytes"],
    [512, "512 bytes"],
    [1024, "1 KiB"],
    [1536, "1.500 KiB"],
    [1_114_112, "1.062 MiB"],
    [2 ** 40, "1 TiB"],
    [0.542251, "0.542251 bytes"],
    [34.147 * 2 ** 20, "34.147 MiB"],
  ])("sizeText(%d) must be as C prints it", (value, text) => {
    expect(sizeText(value)).toBe(text);
  });

  test.each([
    ["0", 0],
    ["255", 255],
    ["0xff", 255],
    ["017", 15],
  ])("patternOf(%s) must be a byte", (word, value) => {
    expect(patternOf(word)).toBe(value);
  });

  test.each(["256", "-1", "x", "", "1k", "0x", "1.5", "08"])("patternOf(%j) is none", (word) => {
    expect(() => patternOf(word)).toThrow(`${word} is not a valid pattern byte`);
  });

  test("sizeOf() and requestLengthOf() must say what is wrong", () => {
    expect([sizeOf("1.5k"), sizeOf("0x200"), requestLengthOf("2147483136")]).toEqual([
      1536, 512, 2_147_483_136,
    ]);
    expect(() => sizeOf("9E")).toThrow("argument too large -- 9E");
    expect(() => sizeOf("-1")).toThrow("non-numeric argument, or extraneous/unrecognized suffix");
    expect(() => requestLengthOf("2G")).toThrow("length cannot exceed 2147483136, given 2G");
  });
});

describe("reports", () => {
  const transfer = { verb: "read", offset: 512, lengthBytes: 65536, milliseconds: 250 };

  test("reportText() must print two lines for people", () => {
    expect(reportText(transfer, false)).toBe(
      "read 65536/65536 bytes at offset 512\n" +
        "64 KiB, 1 ops; 00.25 sec (256 KiB/sec and 4.0000 ops/sec)\n",
    );
    const long = reportText({ ...transfer, milliseconds: 3_723_450 }, false);
    expect(long).toContain("1 ops; 1:02:03.45 (");
  });

  test("reportText() must print one line for programs", () => {
    expect(reportText(transfer, true)).toBe("65536,1,0:00:00.25,262144.000,4.000\n");
  });

  test("dumpText() must show sixteen bytes a line", () => {
    const bytes = new Uint8Array(17);
    bytes.set([0x41, 0x7a, 0x39, 0x2d]);
    expect(dumpText(bytes, 0x1000)).toBe(
      "00001000:  41 7a 39 2d 00 00 00 00 00 00 00 00 00 00 00 00  Az9.............\n" +
        "00001010:  00  .\n",
    );
  });
});

describe("reasons", () => {
  test("reasonOf() must be the C library's words, and our own for what has none", () => {
    expect(reasonOf(new BlockError("ENOSPC", "long story"))).toBe("No space left on device");
    const broken = new CorruptImageError({
      structure: "L2 table",
      hostOffset: 80,
      rule: "is torn",
    });
    expect(reasonOf(broken)).toBe("L2 table at host offset 0x50: is torn");
    expect(storyOf(new BlockError("ENOSPC", "long story"))).toBe("long story");
  });

  test("an interruption and a bug must go up", () => {
    const stopped = new BlockError("ECANCELED", "stopped");
    for (const error of [stopped, new TypeError("bug"), new CommandError("odd")]) {
      expect(() => reasonOf(error)).toThrow(error);
      expect(() => storyOf(error)).toThrow(error);
    }
  });
});
