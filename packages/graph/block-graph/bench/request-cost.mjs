/**
 * What a request costs above its driver: `node bench/request-cost.mjs`. Reads of 4 KiB from drivers that do nothing
 * or copy from memory, alone and through a backend. Compare within one run.
 */
import { IoVector } from "@blocklayer/bytes";
import { BlockGraph } from "@blocklayer/block-graph";
import { memoryDriver, nullDriver } from "@blocklayer/memory";
import { rawDriver } from "@blocklayer/raw";

const LENGTH = 1 << 20;
const READS = 1_000_000;
const DEPTH = 64;
const target = IoVector.allocate(4096);

/** The null driver with a promise for each read. */
const asyncNullDriver = {
  ...nullDriver,
  name: "async-null",
  open(context) {
    const driver = nullDriver.open(context);
    driver.readv = () => new Promise((resolve) => queueMicrotask(resolve));
    return driver;
  },
};

function plainly(readv) {
  const start = performance.now();
  for (let n = 0; n < READS; n++) readv(4096, target);
  return performance.now() - start;
}

async function inFlight(readv) {
  let left = READS;
  const worker = async () => {
    while (left-- > 0) await readv(4096, target);
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: DEPTH }, worker));
  return performance.now() - start;
}

async function report(name, measure, readv) {
  await measure(readv);
  const ms = await measure(readv);
  console.log(`${name.padEnd(34)} ${((ms / READS) * 1e6).toFixed(0).padStart(6)} ns per read`);
}

const graph = new BlockGraph({ drivers: [memoryDriver, nullDriver, asyncNullDriver, rawDriver] });
const raw = (driver) => ({ driver: "raw", file: { driver } });
const disks = [
  { name: "null", measure: plainly, options: { driver: "null-co" } },
  { name: "memory", measure: plainly, options: { driver: "memory", size: LENGTH } },
  { name: "raw over null", measure: plainly, options: raw("null-co") },
  { name: `promise, ${DEPTH} in flight`, measure: inFlight, options: { driver: "async-null" } },
  { name: `raw over it, ${DEPTH} in flight`, measure: inFlight, options: raw("async-null") },
];
for (const { name, measure, options } of disks) {
  const disk = await graph.open(options);
  if (name === "memory") await disk.write(0, new Uint8Array(LENGTH).fill(1));
  const { driver } = disk.root;
  await report(`${name}: driver`, measure, (offset, vector) => driver.readv(offset, vector));
  await report(`${name}: backend`, measure, (offset, vector) => disk.readv(offset, vector));
}
await graph.close();
