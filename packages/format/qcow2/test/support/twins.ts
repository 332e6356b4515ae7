/** Twin images: the same random commands through the real qemu-io and through our driver, and what came of it. */
import { copyFile, readFile, writeFile } from "node:fs/promises";
import type { BlockChild } from "@blocklayer/block-api";
import { parseSize } from "@blocklayer/bytes";
import { type QemuResult, qemuImg } from "./qemu.js";
import { replay, runQemuIo } from "./replay.js";
import type { Rng } from "./rng.js";

/** What both twins go through. */
export interface TwinPlan {
  /** Options of `qemu-img create`. */
  readonly options: string;
  readonly sizeBytes: number;
  /** Commands of qemu-io. A snapshot is made between two lists, by qemu-img on both. */
  readonly lists: readonly (readonly string[])[];
}

/** Where the files of one plan lie. */
export interface TwinFiles {
  readonly theirs: string;
  readonly ours: string;
  /** A raw file beside them, its name as the images have it, and the same bytes for our driver. */
  readonly backing?: { readonly name: string; readonly child: BlockChild };
}

/** An extent as `qemu-img map --output=json` lists it. */
export type MapRow = Readonly<Record<string, unknown>>;

/** Makes both images. */
export async function makeTwins(plan: TwinPlan, files: TwinFiles): Promise<void> {
  const { theirs, ours, backing } = files;
  const under = backing === undefined ? [] : ["-b", backing.name, "-F", "raw"];
  const create = ["create", "-q", "-f", "qcow2", "-o", plan.options, ...under, theirs];
  expectOk(await qemuImg(...create, String(plan.sizeBytes)));
  await copyFile(theirs, ours);
  for (const [index, commands] of plan.lists.entries()) {
    if (index > 0) {
      for (const file of [theirs, ours])
        expectOk(await qemuImg("snapshot", "-c", `s${index}`, file));
    }
    await runQemuIo(theirs, commands, ["-t", "unsafe"]);
    const memory = await replay(new Uint8Array(await readFile(ours)), commands, backing?.child);
    await writeFile(ours, memory.bytes);
  }
  // Holes show in maps, and who leaves which is not what is compared: ours came out of memory.
  await writeFile(theirs, await readFile(theirs));
}

function expectOk({ code, stderr }: QemuResult): void {
  if (code !== 0) throw new Error(stderr);
}

/** The map of an image, without the name of the file. */
export async function mapOf(file: string): Promise<MapRow[]> {
  const result = await qemuImg("map", "--output=json", "-f", "qcow2", file);
  expectOk(result);
  return JSON.parse(result.stdout) as MapRow[];
}

/** A plan of random commands. Each is followed by a flush, so that freed clusters are taken again as by QEMU. */
export function randomPlan(rng: Rng, clusterSize: string): TwinPlan {
  const clusterBytes = parseSize(clusterSize);
  const count = clusterBytes > 2 ** 19 ? 3 : 3 + rng.below(8);
  const tail = rng.below(3) === 0 ? 0 : 512 * rng.below(clusterBytes / 512);
  const sizeBytes = count * clusterBytes + tail;
  const state = new Clusters();
  const lists = Array.from({ length: 1 + rng.below(3) }, () => {
    state.isCursorFreed = false;
    return Array.from({ length: 4 + rng.below(16) }, () =>
      randomCommand(rng, clusterBytes, sizeBytes, state),
    ).flatMap((command) => [command, "flush"]);
  });
  return { options: `cluster_size=${clusterSize},extended_l2=on`, sizeBytes, lists };
}

/** The clusters that may have a host cluster, and those that may be compressed. */
class Clusters {
  readonly taken = new Set<number>();
  readonly compressed = new Set<number>();
  /** QEMU goes on appending to a host cluster of compressed data that was freed, until the image is opened again; we do not [D4]. */
  isCursorFreed = false;
}

function randomCommand(rng: Rng, clusterBytes: number, sizeBytes: number, state: Clusters): string {
  const { taken, compressed } = state;
  const unit = rng.pick([clusterBytes, clusterBytes / 32, clusterBytes / 32, 512, 1]);
  const start = Math.floor(rng.below(sizeBytes) / unit) * unit;
  const reach = rng.pick([clusterBytes / 32, clusterBytes / 4, clusterBytes, 3 * clusterBytes]);
  const wanted = unit * (1 + rng.below(Math.max(1, Math.floor(reach / unit))));
  const toEnd = rng.below(8) === 0;
  const length = toEnd ? sizeBytes - start : Math.min(wanted, sizeBytes - start);
  const first = Math.floor(start / clusterBytes);
  const last = Math.floor((start + length - 1) / clusterBytes);
  const kind = rng.below(12);
  if (kind === 0 && !taken.has(first) && !state.isCursorFreed) {
    // QEMU writes nothing compressed over what has a host cluster.
    taken.add(first);
    compressed.add(first);
    const at = first * clusterBytes;
    return `write -c -P ${1 + rng.below(255)} ${at} ${Math.min(clusterBytes, sizeBytes - at)}`;
  }
  for (let cluster = first; cluster <= last; cluster++) {
    if (compressed.has(cluster)) state.isCursorFreed = true;
  }
  if (kind <= 2) return `discard ${start} ${length}`;
  for (let cluster = first; cluster <= last; cluster++) taken.add(cluster);
  // Where a request ends in a compressed cluster QEMU writes zeroes for all of it, we only there.
  const written = first !== last && (compressed.has(first) || compressed.has(last));
  if (kind <= 4 && !written) return `write -z ${start} ${length}`;
  if (kind <= 6 && !written) return `write -z -u ${start} ${length}`;
  return `write -P ${1 + rng.below(255)} ${start} ${length}`;
}
