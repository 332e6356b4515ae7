/** The table of rules names tests that exist. */
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";

const ROOT = new URL("../", import.meta.url);
const RULES = [
  ...Array.from({ length: 17 }, (_, i) => `C${i + 1}`),
  ...Array.from({ length: 5 }, (_, i) => `D${i + 1}`),
  ...Array.from({ length: 15 }, (_, i) => `S${i + 1}`),
];

interface Row {
  readonly rule: string;
  readonly file: string;
  readonly name: string;
}

const text: string = await readFile(new URL("docs/rules.md", ROOT), "utf8");
const rows: readonly Row[] = text
  .split("\n")
  .filter((line) => /^\| [CDS]\d/.test(line))
  .map((line) => {
    const cells = line
      .slice(2, -2)
      .split(" | ")
      .map((cell) => cell.trim());
    const [rule = "", , file = "", name = ""] = cells;
    return { rule, file: file.replaceAll("`", ""), name };
  });

test("docs/rules.md must have a row for every rule", () => {
  expect([...new Set(rows.map(({ rule }) => rule))]).toEqual(RULES);
});

test.each(rows)("docs/rules.md must name a test that exists: $rule, $name", async (row) => {
  const source = await readFile(new URL(row.file, ROOT), "utf8");
  const titles = ['"', "'", "`"].map((quote) => `${quote}${row.name}${quote}`);
  expect(titles.filter((title) => source.includes(title)).length).toBeGreaterThan(0);
});
