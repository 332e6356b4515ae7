#!/usr/bin/env node
// Times blk beside qemu-img on the same disks, in turn, and prints medians and ratios.
//
//   npm run bench -- [--runs 5] [--only id,id] [--content-mib 1400] [--folder DIR] [--markdown]
//
// The folder holds the disks (about four times the content) and is kept for the next run.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { makeLeaky, makeOnes, makeRealDisk } from "./disks.mjs";
import { countDirectWrites } from "./direct-writes.mjs";
import { median, runOnce } from "./measure.mjs";
import { WORKLOADS } from "./workloads.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../../..");
const blk = [process.execPath, join(root, "packages/app/cli/bin/blk.js")];

const { values: flags } = parseArgs({
  options: {
    runs: { type: "string", default: "5" },
    only: { type: "string" },
    "content-mib": { type: "string", default: "1400" },
    folder: { type: "string", default: join(root, ".cache/bench") },
    markdown: { type: "boolean", default: false },
  },
});
const runs = Number(flags.runs);
const only = flags.only?.split(",");
const chosen = WORKLOADS.filter(({ id }) => only === undefined || only.includes(id));

const paths = prepare();
if (only?.includes("direct-writes")) await countDirectWrites(blk, paths);
const rows = [];
for (const workload of chosen) {
  rows.push(await timeWorkload(workload));
  report(rows[rows.length - 1]);
}
rmSync(paths.out, { force: true });
if (flags.markdown) console.log(`\n${markdown(rows)}`);

/** Makes the disks with the peer, so that both read what neither of ours has made. */
function prepare() {
  const raw = makeRealDisk(flags.folder, Number(flags["content-mib"]));
  const plain = raw.replace(/raw$/, "qcow2");
  const compressed = raw.replace(/raw$/, "compressed.qcow2");
  const convert = (...args) => execFileSync("qemu-img", ["convert", "-O", "qcow2", ...args]);
  if (!existsSync(plain)) convert(raw, plain);
  if (!existsSync(compressed)) convert("-c", "-W", "-m", "16", raw, compressed);
  const zstd = raw.replace(/raw$/, "zstd.qcow2");
  if (!existsSync(zstd)) {
    convert("-c", "-o", "compression_type=zstd", "-W", "-m", "16", raw, zstd);
  }
  const ones = makeOnes(flags.folder);
  for (const path of [raw, plain, compressed, zstd, ones]) readFileInPieces(path);
  const size = String(statSync(raw).size);
  const leaky = makeLeaky(flags.folder, 100_000);
  return { raw, plain, compressed, zstd, ones, leaky, size, out: join(flags.folder, "out.img") };
}

/** Warms the page cache. */
function readFileInPieces(path) {
  execFileSync("cat", [path], { stdio: ["ignore", "ignore", "inherit"] });
}

async function timeWorkload(workload) {
  const fill = (words) => words.map((word) => word.replace(/\{(\w+)\}/, (_, name) => paths[name]));
  const where = workload.oneCpu ? ["taskset", "-c", "0"] : [];
  const peer = workload.besideItself ? blk : ["qemu-img"];
  const sides = { ours: [...where, ...blk, ...fill(workload.ours)] };
  if (workload.peer) sides.peer = [...where, ...peer, ...fill(workload.peer)];
  const seconds = { ours: [], peer: [] };
  const peak = { ours: 0, peer: 0 };
  const size = {};
  for (let run = -1; run < runs; run++) {
    for (const [side, command] of Object.entries(sides)) {
      rmSync(paths.out, { force: true });
      if (workload.before) execFileSync("qemu-img", fill(workload.before), { stdio: "ignore" });
      if (workload.copyOf) {
        execFileSync("cp", ["--sparse=always", ...fill([workload.copyOf]), paths.out]);
      }
      const sample = await runOnce(command);
      if (run < 0) continue; // the first turn warms both up
      const inner = workload.inner?.exec(sample.output)?.[1];
      seconds[side].push(inner === undefined ? sample.seconds : Number(inner));
      peak[side] = Math.max(peak[side], sample.peakMiB);
      if (workload.sizeOf) size[side] = statSync(paths.out).size;
    }
  }
  const ratios = seconds.peer.map((peer, index) => seconds.ours[index] / peer);
  return { workload, seconds, peak, size, ratio: ratios.length > 0 ? median(ratios) : undefined };
}

function report({ workload, seconds, peak, size, ratio }) {
  const ours = median(seconds.ours);
  const value = ratio ?? ours * 1000;
  const met = value <= workload.target ? "met" : "MISSED";
  const verdict = workload.target === undefined ? "" : `, target ${workload.target}: ${met}`;
  const beside = workload.besideItself ? "blk, too " : "qemu-img ";
  const figure = ratio === undefined ? `${value.toFixed(0)} ms` : ratio.toFixed(2);
  console.log(`${workload.title}`);
  const bar = (time, longest) => "█".repeat(Math.max(1, Math.round((time / longest) * 40)));
  const longest = Math.max(ours, ...(ratio === undefined ? [] : [median(seconds.peer)]));
  console.log(`  blk      ${bar(ours, longest)} ${ours.toFixed(3)} s, ${peak.ours.toFixed(0)} MiB`);
  if (ratio !== undefined) {
    const peer = median(seconds.peer);
    console.log(
      `  ${beside}${bar(peer, longest)} ${peer.toFixed(3)} s, ${peak.peer.toFixed(0)} MiB`,
    );
  }
  if (size.ours) console.log(`  output   ${size.ours} bytes, qemu-img's ${size.peer}`);
  console.log(`  ${figure}${verdict}`);
}

function markdown(all) {
  const lines = ["| workload | target | measured | blk peak memory |", "|---|---|---|---|"];
  for (const { workload, seconds, peak, size, ratio } of all) {
    const unit = ratio === undefined ? " ms" : "";
    const value = ratio === undefined ? (median(seconds.ours) * 1000).toFixed(0) : ratio.toFixed(2);
    const sizes = size.ours ? ` (output ${(size.ours / size.peer).toFixed(3)} of qemu-img's)` : "";
    lines.push(
      `| ${workload.title} | ${workload.target === undefined ? "–" : `≤ ${workload.target}${unit}`} | ${value}${unit}${sizes} | ${peak.ours.toFixed(0)} MiB |`,
    );
  }
  const qemu = execFileSync("qemu-img", ["--version"], { encoding: "utf8" }).split("\n")[0];
  const cpu = /model name\s*: (.*)/.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "?";
  return `${lines.join("\n")}\n\n${qemu}, Node ${process.version}, ${cpu}, median of ${runs} paired runs.`;
}
