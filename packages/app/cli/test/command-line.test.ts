import { expect, test } from "vitest";
import { boundedNumber, outputFormat, parseWords, UsageError } from "../src/command-line.js";

const options = {
  compress: { type: "boolean", short: "c" },
  outOfOrder: { type: "boolean", short: "W" },
  coroutines: { type: "string", short: "m" },
  options: { type: "string", short: "o", multiple: true },
  output: { type: "string" },
} as const;

test("parseWords() must read joined, attached, repeated and late options", () => {
  const { values, positionals } = parseWords(
    ["-cW", "in", "-m16", "-o", "a=1", "out", "-o", "b=2", "--output=json", "--", "-x"],
    options,
  );
  expect({ ...values }).toEqual({
    compress: true,
    outOfOrder: true,
    coroutines: "16",
    options: ["a=1", "b=2"],
    output: "json",
  });
  expect(positionals).toEqual(["in", "out", "-x"]);
});

test.each([
  [["-Z"], "unrecognized option '-Z'"],
  [["-cZ"], "unrecognized option '-Z'"],
  [["--nothing"], "unrecognized option '--nothing'"],
  [["-m"], "missing argument for option '-m'"],
  [["--output"], "missing argument for option '--output'"],
  [["--compress=1"], "option '--compress' does not take an argument"],
])("parseWords() must refuse %j as qemu-img does", (words, message) => {
  const parse = () => parseWords(words, options);
  expect(parse).toThrow(UsageError);
  expect(parse).toThrow(message);
});

test("outputFormat() must take human, json and nothing else", () => {
  expect([undefined, "human", "json"].map(outputFormat)).toEqual(["human", "human", "json"]);
  expect(() => outputFormat("xml")).toThrow(
    "--output must be used with human or json as argument.",
  );
});

test("boundedNumber() must refuse what is no whole number in the range", () => {
  expect(boundedNumber("16", 1, 16, "no")).toBe(16);
  for (const bad of ["0", "17", "1.5", "-1", "", "x", "1e1"]) {
    expect(() => boundedNumber(bad, 1, 16, "no")).toThrow("no");
  }
});
