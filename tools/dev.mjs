#!/usr/bin/env node
// One entry for `npm test`, `npm start`, `npm run build`: needs nothing but Node >= 20.19 and npm.
//   1. gets the pnpm that package.json pins (from PATH if it is that very version, else with npx),
//   2. installs what pnpm-lock.yaml lists (a no-op of about 0.1 s when nothing changed),
//   3. runs turbo, a tool, the sample job or the command-line program.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const self = fileURLToPath(import.meta.url);
const root = join(dirname(self), "..");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const pin = manifest.packageManager.split("+")[0]; // pnpm@12.21.0
const version = pin.slice(pin.lastIndexOf("@") + 1);
const windows = process.platform === "win32";
const args = process.argv.slice(2);

const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`blocklayer needs Node >= 20.19; this is ${process.version}`);
  process.exit(1);
}

// npm hands its whole configuration to what it runs as npm_config_*; nothing below should see it.
const env = Object.fromEntries(
  Object.entries(process.env).filter(
    ([key]) => !/^npm_(config|package|lifecycle|command|execpath|node_execpath)/i.test(key),
  ),
);
env.TURBO_TELEMETRY_DISABLED ??= "1";
env.TURBO_NO_UPDATE_NOTIFIER ??= "1";
env.DO_NOT_TRACK ??= "1";
// What a cached result depends on besides files: this Node, and the peer that the interop tests compare with.
env.BLOCKLAYER_NODE = process.version;
const peer = spawnSync("qemu-img", ["--version"], { encoding: "utf8", shell: windows });
env.BLOCKLAYER_PEER = peer.status === 0 ? (peer.stdout.split("\n")[0] ?? "") : "none";

function run(command, argv, options = {}) {
  const result = spawnSync(command, argv, {
    cwd: root,
    env,
    stdio: "inherit",
    shell: windows,
    ...options,
  });
  if (result.error) throw result.error;
  if (result.signal) process.kill(process.pid, result.signal);
  return result.status ?? 1;
}

function must(status) {
  if (status !== 0) process.exit(status);
}

// -- 1. the pinned pnpm
const present = spawnSync("pnpm", ["--version"], {
  cwd: root,
  env,
  encoding: "utf8",
  shell: windows,
});
if (present.status !== 0 || present.stdout.trim() !== version) {
  if (env.BLOCKLAYER_PNPM_TRIED) {
    console.error(`could not get ${pin}; is the npm registry within reach?`);
    process.exit(1);
  }
  // --loglevel=error hides npm's warnings on user settings that it no longer knows.
  const npx = ["--yes", "--prefer-offline", "--loglevel=error", "--package", pin, "--"];
  process.exit(
    run("npx", [...npx, "node", self, ...args], {
      env: { ...env, BLOCKLAYER_PNPM_TRIED: "1" },
      cwd: process.cwd(),
    }),
  );
}
delete env.BLOCKLAYER_PNPM_TRIED;

// -- 2. the dependencies; never on stdout, which belongs to the program that runs below
const installed = existsSync(join(root, "node_modules/.modules.yaml"));
const quiet = installed ? ["--reporter=silent"] : [];
const toStderr = { stdio: ["ignore", 2, 2] };
let status = run("pnpm", ["install", "--frozen-lockfile", "--prefer-offline", ...quiet], toStderr);
if (status !== 0 && !env.CI) status = run("pnpm", ["install"], toStderr); // package.json was edited
must(status);

// -- 3. the work
const [verb, ...rest] = args;
switch (verb) {
  case "install":
    break;
  case "turbo": {
    const tests = rest.includes("test");
    if (tests) for (const file of reports()) rmSync(file, { force: true }); // turbo puts cached ones back
    const result = run("pnpm", [
      "exec",
      "turbo",
      "run",
      ...rest,
      "--continue=dependencies-successful",
    ]);
    if (tests) printTotals();
    process.exit(result);
    break;
  }
  case "exec":
    process.exit(run("pnpm", ["exec", ...rest]));
    break;
  case "node":
    must(build());
    process.exit(runNode(rest));
    break;
  case "start": {
    must(build());
    const { blk, sample } = manifest.config;
    process.exit(runNode(rest.length > 0 ? [join(root, blk), ...rest] : [join(root, sample)]));
    break;
  }
  default:
    console.error(`unknown verb ${verb}`);
    process.exit(2);
}

function build() {
  const turbo = ["exec", "turbo", "run", "build", "--output-logs=errors-only", "--log-prefix=none"];
  const log = spawnSync("pnpm", turbo, { cwd: root, env, encoding: "utf8", shell: windows });
  if (log.status !== 0) process.stderr.write(`${log.stdout}${log.stderr}`);
  return log.status ?? 1;
}

/** The program sees the caller's environment and folder, as if it had been called by its own name. */
function runNode(argv) {
  const cwd = process.env.INIT_CWD ?? process.cwd();
  return run(process.execPath, argv, { shell: false, cwd, env: process.env });
}

/** Every package's vitest leaves .vitest/report.json, which turbo keeps with its cache: one total for all. */
function reports() {
  const found = [];
  for (const manifestPath of workspaceFolders()) {
    const file = join(manifestPath, ".vitest/report.json");
    if (existsSync(file)) found.push(file);
  }
  return found;
}

function workspaceFolders() {
  const folders = [join(root, "examples")];
  const children = (folder) =>
    readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(folder, entry.name));
  for (const shelf of children(join(root, "packages"))) folders.push(...children(shelf));
  folders.push(...children(join(root, "tools")));
  return folders;
}

function printTotals() {
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  for (const file of reports()) {
    const report = JSON.parse(readFileSync(file, "utf8"));
    passed += report.numPassedTests;
    failed += report.numFailedTests;
    skipped += report.numPendingTests + report.numTodoTests;
  }
  console.log(`tests: ${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ""}`);
}
