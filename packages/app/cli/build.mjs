// Bundles the compiled program: a tool that people call in loops must start fast, and a few files load in a third
// of the time of a hundred. Each command is a chunk of its own, so that `blk info` does not read the copy engine.
import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const OUT = "dist/bundle";

/**
 * koffi is an optional dependency of @blocklayer/file, not of this package: pnpm shows it to that package only. So it
 * is looked up from there; where it is not installed the import fails, as @blocklayer/file expects.
 */
const koffi = {
  name: "koffi",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^koffi$/ }, () => ({ path: "koffi", namespace: "koffi" }));
    onLoad({ filter: /.*/, namespace: "koffi" }, () => ({
      contents: `import { createRequire } from "node:module";
        const file = createRequire(import.meta.url).resolve("@blocklayer/file/package.json");
        export default createRequire(file)("koffi");`,
    }));
  },
};

rmSync(OUT, { recursive: true, force: true });
await build({
  entryPoints: { blk: "dist/main.js" },
  outdir: OUT,
  bundle: true,
  splitting: true,
  platform: "node",
  format: "esm",
  target: "node20",
  // Names stay: a stack trace in a bug report is of no use without them.
  minifySyntax: true,
  minifyWhitespace: true,
  sourcemap: "linked",
  plugins: [koffi],
  logLevel: "warning",
});
if (!readdirSync(OUT).includes("blk.js")) throw new Error("the bundle has no entry");
