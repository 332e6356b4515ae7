// The rules of the house. Each takes the house and returns one line for each breach.
import { builtinModules } from "node:module";

/** @typedef {import("./read-house.mjs").House} House */

const OURS = "@blocklayer/";
const builtins = new Set(builtinModules);
// Not `window`: the raw format has one of its own.
const DOM_NAMES =
  /(?<![.\w$"'])(document\b|navigator\b|localStorage\b|sessionStorage\b|indexedDB\b|HTMLElement\b)(?!["':])/;

/** layers.json and packages/ name the same packages. */
export function everyPackageHasARank(/** @type {House} */ house) {
  const present = house.packages.map((one) => one.path);
  const ranked = Object.keys(house.ranks);
  return [
    ...present
      .filter((path) => !(path in house.ranks))
      .map((path) => `${path}: not in layers.json`),
    ...ranked
      .filter((path) => !present.includes(path))
      .map((path) => `layers.json: ${path} does not exist`),
  ];
}

/** Run-time dependencies and tsconfig references go to strictly lower ranks, and say the same. */
export function dependenciesGoDown(/** @type {House} */ house) {
  const byName = new Map(house.packages.map((one) => [one.name, one]));
  const breaches = [];
  for (const one of house.packages) {
    const ours = one.dependencies.filter((name) => name.startsWith(OURS));
    const paths = ours.map((name) => byName.get(name)?.path);
    for (const [index, path] of paths.entries()) {
      if (path === undefined) breaches.push(`${one.path}: depends on unknown ${ours[index]}`);
      else if (house.ranks[path] >= house.ranks[one.path]) {
        const ranks = `rank ${house.ranks[one.path]} on rank ${house.ranks[path]}`;
        breaches.push(`${one.path}: depends on ${path} (${ranks})`);
      }
    }
    const declared = paths.filter(Boolean).sort().join(" ");
    const referenced = [...one.references].sort().join(" ");
    if (declared !== referenced) {
      breaches.push(
        `${one.path}: tsconfig references [${referenced}], package.json has [${declared}]`,
      );
    }
  }
  return breaches;
}

/** What src imports is declared, not deep, not out of src, and no test code. */
export function importsAreDeclared(/** @type {House} */ house) {
  const byName = new Map(house.packages.map((one) => [one.name, one]));
  const breaches = [];
  for (const one of house.packages) {
    for (const { file, specifier } of one.imports) {
      const at = `${one.path}/${file}: '${specifier}'`;
      if (specifier.startsWith(".")) {
        const depth = file.split("/").length - 2;
        const ups = specifier.split("/").filter((part) => part === "..").length;
        if (ups > depth) breaches.push(`${at} leaves src`);
        continue;
      }
      const builtin = specifier.replace(/^node:/, "");
      if (builtins.has(builtin)) {
        if (!house.nodeBuiltins.includes(one.path)) breaches.push(`${at} is for Node only`);
        continue;
      }
      const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
      if (!one.dependencies.includes(name)) breaches.push(`${at} is not a declared dependency`);
      const subpath = specifier.slice(name.length);
      const target = byName.get(name);
      if (target !== undefined && subpath !== "" && !target.subpaths.includes(`.${subpath}`)) {
        breaches.push(`${at} reaches past the package's exports`);
      }
    }
  }
  return breaches;
}

/** Every declared dependency of ours is used: a package asks for no more than it needs. */
export function dependenciesAreUsed(/** @type {House} */ house) {
  const breaches = [];
  for (const one of house.packages) {
    const used = one.imports.map(({ specifier }) => specifier);
    for (const name of one.dependencies) {
      if (!used.some((specifier) => specifier === name || specifier.startsWith(`${name}/`))) {
        breaches.push(`${one.path}: declares ${name} and never imports it`);
      }
    }
  }
  return breaches;
}

/** The DOM is named only where layers.json allows it. */
export function noDomOutside(/** @type {House} */ house) {
  const breaches = [];
  for (const one of house.packages) {
    if (house.dom.includes(one.path)) continue;
    for (const { file, text } of one.sources) {
      const match = DOM_NAMES.exec(text);
      if (match) breaches.push(`${one.path}/${file}: names the DOM's ${match[1]}`);
    }
  }
  return breaches;
}

/** An index lists what it exports, name by name. */
export function indexesAreExplicit(/** @type {House} */ house) {
  return house.packages.flatMap((one) =>
    one.sources
      .filter(({ file, text }) => /index(\.\w+)?\.ts$/.test(file) && /export\s*\*/.test(text))
      .map(({ file }) => `${one.path}/${file}: 'export *' hides what is public`),
  );
}

export const RULES = {
  everyPackageHasARank,
  dependenciesGoDown,
  importsAreDeclared,
  dependenciesAreUsed,
  noDomOutside,
  indexesAreExplicit,
};
