// Reads the house: every package with its rank, declared dependencies and imports.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";

/**
 * @typedef {object} Import
 * @property {string} file - path from the package's folder
 * @property {string} specifier - as written
 *
 * @typedef {object} House
 * @property {string} root
 * @property {Record<string, number>} ranks - "shelf/package" to rank, from layers.json
 * @property {string[]} nodeBuiltins - packages that may import node:
 * @property {string[]} dom - packages that may name the DOM
 * @property {Package[]} packages
 *
 * @typedef {object} Package
 * @property {string} path - "shelf/package"
 * @property {string} name - "@blocklayer/package"
 * @property {string[]} dependencies - every declared run-time dependency
 * @property {string[]} references - folders that tsconfig.json refers to, as "shelf/package"
 * @property {string[]} subpaths - what `exports` declares besides "."
 * @property {Import[]} imports
 * @property {{file: string, text: string}[]} sources - without comments
 */

/** @param {string} root @returns {House} */
export function readHouse(root) {
  const layers = JSON.parse(readFileSync(join(root, "layers.json"), "utf8"));
  const packages = [];
  for (const shelf of folders(join(root, "packages"))) {
    for (const name of folders(join(root, "packages", shelf))) {
      packages.push(readPackage(root, `${shelf}/${name}`));
    }
  }
  const { nodeBuiltins, dom } = layers;
  return { root, ranks: layers.packages, nodeBuiltins, dom, packages };
}

/** @param {string} root @param {string} path @returns {Package} */
function readPackage(root, path) {
  const folder = join(root, "packages", path);
  const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const tsconfig = JSON.parse(readFileSync(join(folder, "tsconfig.json"), "utf8"));
  const sources = filesBelow(join(folder, "src")).map((file) => ({
    file: relative(folder, file),
    text: withoutComments(readFileSync(file, "utf8")),
  }));
  const { dependencies, peerDependencies, optionalDependencies } = manifest;
  return {
    path,
    name: manifest.name,
    dependencies: Object.keys({ ...dependencies, ...peerDependencies, ...optionalDependencies }),
    references: (tsconfig.references ?? []).map((reference) =>
      relative(join(root, "packages"), join(folder, reference.path)),
    ),
    subpaths: Object.keys(manifest.exports ?? {}).filter((key) => key !== "."),
    imports: sources.flatMap(({ file, text }) =>
      importsOf(text).map((specifier) => ({ file, specifier })),
    ),
    sources,
  };
}

/** Every module that a source names, statically or by a literal `import()`. */
export function importsOf(text) {
  const found = new Set();
  const patterns = [
    /(?:^|[;}\n])\s*(?:import|export)\b[^;"'`]*?\bfrom\s*["']([^"']+)["']/g,
    /(?:^|[;}\n])\s*import\s*["']([^"']+)["']/g,
    /\bimport\s*\(\s*["']([^"']+)["']\s*\)/g,
  ];
  for (const pattern of patterns) for (const match of text.matchAll(pattern)) found.add(match[1]);
  return [...found];
}

/** The source with comments blanked; strings stay, so that a `//` inside one does no harm. */
export function withoutComments(text) {
  return text.replace(
    /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (_, string) => string ?? "",
  );
}

function folders(path) {
  return readdirSync(path)
    .filter((name) => statSync(join(path, name)).isDirectory())
    .sort();
}

function filesBelow(path) {
  if (!existsSync(path)) return [];
  return readdirSync(path, { withFileTypes: true })
    .flatMap((entry) => {
      const child = join(path, entry.name);
      if (entry.isDirectory()) return filesBelow(child);
      return /\.(ts|mts|js|mjs)$/.test(entry.name) ? [child] : [];
    })
    .sort();
}
