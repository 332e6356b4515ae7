/**
 * What `npm start` runs: a disk is made, becomes a compressed qcow2 image, is checked and mapped, comes back, and is
 * the same bit for bit.
 */
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { formatSize } from "@blocklayer/bytes";
import { fileDriver } from "@blocklayer/file";
import {
  checkImage,
  compareImages,
  convertImage,
  ConvertTarget,
  mapImage,
  openImage,
} from "@blocklayer/image";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { SingleBar } from "cli-progress";
import colors from "picocolors";
import { makeSampleDisk } from "./sample/make-disk.js";
import { drawMap, type Kind, tally } from "./sample/draw-map.js";

const drivers = [fileDriver, rawDriver, qcow2Driver];
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const folder = join(root, ".sample");
const raw = join(folder, "sample.raw");
const packed = join(folder, "sample.qcow2");
const back = join(folder, "back.raw");

mkdirSync(folder, { recursive: true });
for (const path of [raw, packed, back]) rmSync(path, { force: true });

heading("A disk");
const { disk, fileCount } = makeSampleDisk(root);
writeFileSync(raw, disk);
say(raw, `${formatSize(disk.length)}: a partition table, FAT16, ${fileCount} files`);

heading("raw → compressed qcow2");
const packedIn = await convert(raw, packed, "qcow2", true);

heading("Check");
await using image = await openImage(packed, { drivers });
const { report, result } = await checkImage(image);
for (const { message } of result.findings) console.log(message);
const broken = (report.corruptions ?? 0) + (report.leaks ?? 0) + report["check-errors"];
if (broken > 0) fail(`the check found ${broken} errors`);
say(packed, "no errors");

heading("Map");
const kinds: { kind: Kind; bytes: number }[] = [];
for await (const { length, data, zero, compressed } of mapImage(image)) {
  kinds.push({ kind: compressed ? "compressed" : data && !zero ? "data" : "zero", bytes: length });
}
console.log(drawMap(kinds, disk.length));

heading("compressed qcow2 → raw, and compare");
const unpackedIn = await convert(packed, back, "raw", false);
await using original = await openImage(raw, { drivers, format: "raw" });
await using returned = await openImage(back, { drivers, format: "raw" });
const verdict = await compareImages(original, returned);
if (verdict.kind !== "identical") fail(`the disk came back changed: ${JSON.stringify(verdict)}`);
say(back, "identical, bit for bit");

heading("Summary");
const packedBytes = statSync(packed).size;
const sums = tally(kinds);
const rate = (seconds: number) => `${formatSize(Math.round(disk.length / seconds))}/s`;
const rows: readonly (readonly [string, string])[] = [
  ["disk", formatSize(disk.length)],
  ["with data", formatSize(sums.compressed + sums.data)],
  ["qcow2 file", formatSize(packedBytes)],
  ["ratio", `${((sums.compressed + sums.data) / packedBytes).toFixed(2)} : 1`],
  [
    "clusters",
    `${report["compressed-clusters"] ?? 0} compressed, ${(report["allocated-clusters"] ?? 0) - (report["compressed-clusters"] ?? 0)} plain, of ${report["total-clusters"] ?? 0}`,
  ],
  ["compressed at", rate(packedIn)],
  ["unpacked at", rate(unpackedIn)],
];
for (const [name, value] of rows) console.log(`  ${colors.dim(name.padEnd(14))} ${value}`);
console.log(`\nNext: npm start -- info ${relative(process.cwd(), packed)}`);

/** Converts with a progress bar; returns the seconds it took. */
async function convert(
  from: string,
  to: string,
  format: string,
  compressed: boolean,
): Promise<number> {
  const start = process.hrtime.bigint();
  await using source = await openImage(from, { drivers });
  await using target = await ConvertTarget.create({
    drivers,
    filename: to,
    format,
    sizeBytes: source.lengthBytes,
  });
  const bar = new SingleBar({
    format: "  {bar} {percentage}%",
    barCompleteChar: "█",
    barIncompleteChar: "░",
    hideCursor: true,
    noTTYOutput: false,
  });
  bar.start(source.lengthBytes, 0);
  try {
    await convertImage({
      sources: [source],
      target: target.backend,
      targetIsZero: target.isKnownZero,
      compressed,
      onProgress: (done) => bar.update(done),
    });
  } finally {
    bar.stop();
  }
  await target.complete();
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  say(to, `${formatSize(statSync(to).size)} in ${seconds.toFixed(2)} s`);
  return seconds;
}

function heading(text: string): void {
  console.log(`\n${colors.bold(text)}`);
}

function say(path: string, text: string): void {
  console.log(`  ${relative(process.cwd(), path)}: ${text}`);
}

function fail(reason: string): never {
  console.error(colors.red(`blocklayer: ${reason}`));
  process.exit(1);
}
