// Bundles for browsers, as an application does it: what needs a built-in module of Node does not come through.
import { build } from "esbuild";

/** The packages that promise to run in browsers, and are not brought in by one of the others. */
export const PORTABLE = ["block-graph", "filters", "image", "memory", "qcow2", "raw"];

const FOLDER = import.meta.dirname;
const OPTIONS = {
  bundle: true,
  platform: "browser",
  format: "esm",
  write: false,
  logLevel: "silent",
};

/** The program of the page, as one module. @returns {Promise<string>} */
export async function bundlePage() {
  const { outputFiles } = await build({ ...OPTIONS, entryPoints: [`${FOLDER}/page.mjs`] });
  return outputFiles[0].text;
}

/** Bundles a package whole. Rejects with the name of what a browser does not have. */
export async function bundlePackage(name) {
  const contents = `import * as all from "@blocklayer/${name}"; globalThis.all = all;`;
  await build({ ...OPTIONS, stdin: { contents, resolveDir: FOLDER } });
}
