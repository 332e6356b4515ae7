/** Images of every shape, made by the real qemu-img and qemu-io. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** How one image is made. */
export interface Recipe {
  readonly name: string;
  readonly options: string;
  readonly size: string;
  /** Steps behind creation: `io …` for qemu-io, else arguments of qemu-img; `$` is the image. */
  readonly steps: readonly string[];
}

export const RECIPES: readonly Recipe[] = [
  { name: "empty", options: "cluster_size=4k", size: "1M", steps: [] },
  {
    name: "data",
    options: "cluster_size=4k",
    size: "4M",
    steps: [
      "io write -P 1 0 300k",
      "io write -P 2 1M 17k",
      "io write -z 2M 64k",
      "io write -P 3 3M 4k",
    ],
  },
  {
    name: "compressed",
    options: "cluster_size=4k",
    size: "4M",
    steps: [
      "io write -c -P 1 0 4k",
      "io write -c -P 2 4k 4k",
      "io write -P 3 64k 20k",
      "io write -c -P 4 1M 4k",
      "io write -c -P 5 2M 4k",
      "io write -P 6 4k 4k",
    ],
  },
  {
    name: "zstd",
    options: "cluster_size=4k,compression_type=zstd",
    size: "4M",
    steps: [
      "io write -c -P 1 0 4k",
      "io write -c -P 2 4k 4k",
      "io write -P 3 64k 20k",
      "io write -c -P 4 1M 4k",
      "io write -P 6 4k 4k",
    ],
  },
  {
    name: "zstd-snapshot",
    options: "cluster_size=512,compression_type=zstd,refcount_bits=8",
    size: "256k",
    steps: ["io write -c -P 1 0 512", "snapshot -c one $", "io write -c -P 2 128k 512"],
  },
  {
    name: "snapshots",
    options: "cluster_size=512",
    size: "256k",
    steps: [
      "io write -P 1 0 64k",
      "snapshot -c one $",
      "io write -P 2 0 10k",
      "io write -c -P 5 128k 512",
      "snapshot -c two $",
      "io write -P 3 5k 10k",
    ],
  },
  {
    name: "bitmaps",
    options: "cluster_size=1k",
    size: "1M",
    steps: [
      "bitmap --add $ first",
      "bitmap --add -g 512 $ second",
      "io write -P 1 0 200k",
      "bitmap --disable $ first",
    ],
  },
  {
    name: "version2",
    options: "cluster_size=512,compat=0.10",
    size: "200k",
    steps: ["io write -P 1 0 100k", "io write -c -P 2 150k 512"],
  },
  {
    name: "refcount1",
    options: "cluster_size=512,refcount_bits=1",
    size: "1M",
    steps: ["io write -P 1 0 100k", "io discard 10k 8k"],
  },
  {
    name: "refcount64",
    options: "cluster_size=512,refcount_bits=64",
    size: "1M",
    steps: ["io write -P 1 0 100k", "snapshot -c one $", "io write -P 2 50k 20k"],
  },
  {
    name: "preallocated",
    options: "cluster_size=2k,preallocation=metadata,refcount_bits=8",
    size: "1M",
    steps: ["io write -P 1 0 100k", "io write -z 50k 20k"],
  },
  {
    name: "subclusters",
    options: "cluster_size=16k,extended_l2=on",
    size: "1M",
    steps: [
      "io write -P 1 0 40k",
      "io write -P 2 50k 700",
      "io write -c -P 3 64k 16k",
      "io write -z 70k 3k",
      "io write -z 100k 20k",
      "io write -P 4 112k 1k",
      "io discard 16k 16k",
      "snapshot -c one $",
      "io write -P 5 49k 512",
      "io write -c -P 6 256k 16k",
      "io write -z 5k 1k",
    ],
  },
  {
    name: "subclusters64k",
    options: "extended_l2=on,refcount_bits=8",
    size: "3M",
    steps: ["io write -P 1 10k 100k", "io write -z 64k 6k", "io write -c -P 2 1M 64k"],
  },
  { name: "large", options: "cluster_size=64k", size: "1T", steps: ["io write -P 1 500G 1M"] },
];

/** Makes an image in `filename`, and returns its bytes. */
export async function makeImage(recipe: Recipe, filename: string): Promise<Uint8Array> {
  await run("qemu-img", [
    "create",
    "-q",
    "-f",
    "qcow2",
    "-o",
    recipe.options,
    filename,
    recipe.size,
  ]);
  for (const step of recipe.steps) {
    if (step.startsWith("io ")) await run("qemu-io", ["-c", step.slice(3), filename]);
    else
      await run(
        "qemu-img",
        step.split(" ").map((word) => (word === "$" ? filename : word)),
      );
  }
  return new Uint8Array(await readFile(filename));
}
