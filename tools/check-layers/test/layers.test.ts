import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { picture, withPicture } from "../src/picture.mjs";
import { importsOf, readHouse, withoutComments } from "../src/read-house.mjs";
import { RULES } from "../src/rules.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const house = readHouse(root);

for (const [name, rule] of Object.entries(RULES)) {
  test(`the house must keep the rule ${name}`, () => {
    expect(rule(house)).toEqual([]);
  });
}

test("ARCHITECTURE.md must show the stack as it is", () => {
  const document = readFileSync(join(root, "ARCHITECTURE.md"), "utf8");
  expect(withPicture(document, picture(house))).toBe(document);
});

/** A small house with one flaw for each rule: a rule that cannot fail is worth nothing. */
function flawed() {
  const package_ = (path: string, over: object) => ({
    path,
    name: `@blocklayer/${path.split("/")[1]}`,
    dependencies: [],
    references: [],
    subpaths: [],
    imports: [],
    sources: [],
    ...over,
  });
  return {
    root,
    ranks: { "a/low": 0, "a/high": 1, "a/gone": 2 },
    nodeBuiltins: [],
    dom: [],
    packages: [
      package_("a/high", {}),
      package_("a/low", {
        dependencies: ["@blocklayer/high"],
        imports: [
          { file: "src/x.ts", specifier: "../../high/src/y.js" },
          { file: "src/x.ts", specifier: "node:fs" },
          { file: "src/x.ts", specifier: "left-pad" },
          { file: "src/x.ts", specifier: "@blocklayer/high/dist/z.js" },
        ],
        sources: [
          { file: "src/index.ts", text: 'export * from "./x.js";' },
          { file: "src/x.ts", text: "document.title = '';" },
        ],
      }),
      package_("a/new", { dependencies: ["fflate"] }),
    ],
  };
}

test("every rule must find its flaw", () => {
  const found = Object.fromEntries(
    Object.entries(RULES).map(([name, rule]) => [name, rule(flawed()).length]),
  );
  expect(found).toEqual({
    everyPackageHasARank: 2,
    dependenciesGoDown: 2,
    importsAreDeclared: 4,
    dependenciesAreUsed: 1,
    noDomOutside: 1,
    indexesAreExplicit: 1,
  });
});

test("importsOf() must see every form and nothing in comments", () => {
  const text = `
    import a from "a";
    import { b,
      type c } from "b";
    export { d } from "./d.js";
    import "e";
    const f = await import("f");
    // import g from "g";
    /* import h from "h"; */
    const url = "http://x"; import type { i } from "i";
  `;
  expect(importsOf(withoutComments(text)).sort()).toEqual(["./d.js", "a", "b", "e", "f", "i"]);
});
