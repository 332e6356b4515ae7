// What is timed. A workload names our command and the one beside it; {x} are paths that main.mjs fills in.

/**
 * @typedef {object} Workload
 * @property {string} id
 * @property {string} title
 * @property {number} [target] - our time / the peer's must not be above this; absent: for comparison only
 * @property {string[]} ours - arguments of blk
 * @property {string[]} [peer] - arguments of qemu-img; absent: there is no peer, the target is milliseconds
 * @property {boolean} [besideItself] - `peer` are arguments of blk as well
 * @property {string[]} [before] - arguments of qemu-img that make the output first, untimed
 * @property {string} [copyOf] - the output is a copy of this file, made untimed
 * @property {boolean} [oneCpu] - both run on one processor
 * @property {RegExp} [inner] - the time that both print themselves, in seconds
 * @property {string} [sizeOf] - print the size of this output for both
 */

const convert = (...args) => ["convert", ...args];

const direct = ["-t", "none"];
const many = ["-W", "-m", "16"];
const zstd = ["-o", "compression_type=zstd"];
/** A target that is there already, opened past the page cache, without the compressed cache. */
const uncached = [
  "-n",
  "-t",
  "none",
  "--target-image-opts",
  "driver=qcow2,compressed-write-cache=off,file.driver=file,file.filename={out}",
];

/** The same `bench` through both: process start is in neither time, which both print themselves. */
function bench(...words) {
  const args = ["bench", ...words];
  return { ours: args, peer: args, inner: /Run completed in ([\d.]+) seconds/ };
}

/**
 * Steps through a disk of 1000 MiB in which each block is met once: odd and no multiple of 5, as the number of blocks has no
 * other divisors than 2 and 5; close to the golden section of the disk, so that no two neighbours in time are neighbours in place.
 */
const RANDOM_STEP_KIB = { of4: 158_217 * 4, of64: 9889 * 64 };

/** Writes into a new overlay over a raw disk full of data, with a flush after each quarter of them. */
function overlayWrites(order, sizeKiB, count, stepKiB, depth) {
  const many = depth === 1 ? "one" : String(depth);
  const words = ["-w", "-f", "qcow2", "-c", count, "-d", depth, "-s", `${sizeKiB}k`];
  const flush = ["--flush-interval", count / 4, "--pattern", 5];
  return {
    id: `overlay-${order}-${sizeKiB}k-${depth}`,
    title: `${count} ${order} writes of ${sizeKiB} KiB into an overlay, ${many} in flight`,
    target: 1.5,
    before: ["create", "-f", "qcow2", "-b", "{ones}", "-F", "raw", "{out}"],
    ...bench(...[...words, "-S", `${stepKiB}k`, ...flush, "{out}"].map(String)),
  };
}

/** @type {Workload[]} */
export const WORKLOADS = [
  {
    id: "to-qcow2",
    title: "raw → qcow2, against its default",
    target: 1.0,
    ours: convert("-O", "qcow2", "{raw}", "{out}"),
    peer: convert("-O", "qcow2", "{raw}", "{out}"),
  },
  {
    id: "to-qcow2-parallel",
    title: "raw → qcow2, against `-W -m 16`",
    target: 1.0,
    ours: convert("-W", "-m", "16", "-O", "qcow2", "{raw}", "{out}"),
    peer: convert("-W", "-m", "16", "-O", "qcow2", "{raw}", "{out}"),
  },
  {
    id: "compress",
    title: "raw → qcow2 `-c`, against `-W -m 16`",
    target: 0.65,
    ours: convert("-c", "-W", "-m", "16", "-O", "qcow2", "{raw}", "{out}"),
    peer: convert("-c", "-W", "-m", "16", "-O", "qcow2", "{raw}", "{out}"),
    sizeOf: "{out}",
  },
  {
    id: "decompress",
    title: "compressed qcow2 → raw, against `-W -m 16`",
    target: 0.9,
    ours: convert("-W", "-m", "16", "-O", "raw", "{compressed}", "{out}"),
    peer: convert("-W", "-m", "16", "-O", "raw", "{compressed}", "{out}"),
  },
  {
    id: "compress-zstd",
    title: "raw → qcow2 `-c`, zstd, against `-W -m 16`",
    ours: convert("-c", ...zstd, ...many, "-O", "qcow2", "{raw}", "{out}"),
    peer: convert("-c", ...zstd, ...many, "-O", "qcow2", "{raw}", "{out}"),
    sizeOf: "{out}",
  },
  {
    id: "decompress-zstd",
    title: "zstd-compressed qcow2 → raw, against `-W -m 16`",
    ours: convert(...many, "-O", "raw", "{zstd}", "{out}"),
    peer: convert(...many, "-O", "raw", "{zstd}", "{out}"),
  },
  {
    id: "compare-plain",
    title: "compare raw and qcow2",
    target: 1.0,
    ours: ["compare", "{raw}", "{plain}"],
    peer: ["compare", "{raw}", "{plain}"],
  },
  {
    id: "compare-compressed",
    title: "compare raw and compressed qcow2",
    target: 1.0,
    ours: ["compare", "{raw}", "{compressed}"],
    peer: ["compare", "{raw}", "{compressed}"],
  },
  {
    id: "reads-qcow2",
    title: "200,000 reads of 4 KiB from qcow2, 64 in flight, page cache warm",
    target: 0.6,
    ...bench("-f", "qcow2", "-c", "200000", "-d", "64", "-s", "4096", "{plain}"),
  },
  {
    id: "reads-raw",
    title: "200,000 reads of 4 KiB from raw, 64 in flight, page cache warm",
    target: 0.6,
    ...bench("-f", "raw", "-c", "200000", "-d", "64", "-s", "4096", "{raw}"),
  },
  ...[1, 64].flatMap((depth) => [
    overlayWrites("sequential", 4, 65_536, 4, depth),
    overlayWrites("random", 4, 16_000, RANDOM_STEP_KIB.of4, depth),
    overlayWrites("sequential", 64, 16_000, 64, depth),
    overlayWrites("random", 64, 16_000, RANDOM_STEP_KIB.of64, depth),
  ]),
  {
    id: "check",
    title: "check, whole process",
    target: 2.0,
    ours: ["check", "{plain}"],
    peer: ["check", "{plain}"],
  },
  {
    id: "repair-leaks",
    title: "check -r leaks of 100,000 leaked clusters, whole process",
    target: 1.5,
    copyOf: "{leaky}",
    ours: ["check", "-r", "leaks", "{out}"],
    peer: ["check", "-r", "leaks", "{out}"],
  },
  {
    id: "info",
    title: "info, whole process",
    target: 120,
    ours: ["info", "{plain}"],
  },
  {
    id: "direct",
    title: "`-c` into O_DIRECT, against ours into the page cache",
    target: 1.05,
    besideItself: true,
    ours: convert("-c", ...direct, "-O", "qcow2", "{raw}", "{out}"),
    peer: convert("-c", "-O", "qcow2", "{raw}", "{out}"),
  },
  {
    id: "direct-parallel",
    title: "`-c -W -m 16` into O_DIRECT",
    target: 0.6,
    ours: convert("-c", ...many, ...direct, "-O", "qcow2", "{raw}", "{out}"),
    peer: convert("-c", ...many, ...direct, "-O", "qcow2", "{raw}", "{out}"),
  },
  {
    id: "direct-ones",
    title: "`-c` of 1000 MiB of ones into O_DIRECT, one processor",
    target: 0.3,
    oneCpu: true,
    ours: convert("-c", ...direct, "-O", "qcow2", "{ones}", "{out}"),
    peer: convert("-c", ...direct, "-O", "qcow2", "{ones}", "{out}"),
  },
  {
    id: "uncached",
    title: "the first of these three without the cache",
    besideItself: true,
    before: ["create", "-f", "qcow2", "{out}", "{size}"],
    ours: convert("-c", ...uncached.slice(0, -1), "{raw}", uncached.at(-1)),
    peer: convert("-c", "-n", "-O", "qcow2", "{raw}", "{out}"),
  },
  {
    id: "uncached-parallel",
    title: "the second without the cache",
    before: ["create", "-f", "qcow2", "{out}", "{size}"],
    ours: convert("-c", ...many, ...uncached.slice(0, -1), "{raw}", uncached.at(-1)),
    peer: convert("-c", ...many, ...direct, "-n", "-O", "qcow2", "{raw}", "{out}"),
  },
  {
    id: "uncached-ones",
    title: "the third without the cache",
    oneCpu: true,
    before: ["create", "-f", "qcow2", "{out}", "1000M"],
    ours: convert("-c", ...uncached.slice(0, -1), "{ones}", uncached.at(-1)),
    peer: convert("-c", ...direct, "-n", "-O", "qcow2", "{ones}", "{out}"),
  },
];
