#!/usr/bin/env node
// Prints the stack and every breach of its rules; `--write` also brings ARCHITECTURE.md up to date.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { picture, withPicture } from "./picture.mjs";
import { readHouse } from "./read-house.mjs";
import { RULES } from "./rules.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const house = readHouse(root);
const drawn = picture(house);
console.log(drawn);
if (process.argv.includes("--write")) {
  const path = join(root, "ARCHITECTURE.md");
  writeFileSync(path, withPicture(readFileSync(path, "utf8"), drawn));
}
const breaches = Object.values(RULES).flatMap((rule) => rule(house));
for (const breach of breaches) console.error(breach);
process.exitCode = breaches.length > 0 ? 1 : 0;
