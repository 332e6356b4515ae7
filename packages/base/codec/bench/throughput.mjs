/**
 * Throughput of the Node codec in both directions: `node bench/throughput.mjs FILE [MiB]`.
 * FILE is typical data, cut into clusters of 64 KiB; results depend on it, so compare within one run.
 */
import { readFileSync } from "node:fs";
import { createCodec } from "@blocklayer/codec";

const CLUSTER = 65536;
const [file, mebibytes = "32"] = process.argv.slice(2);
const data = readFileSync(file).subarray(0, Number(mebibytes) * 1024 * 1024);
const shared = new Uint8Array(new SharedArrayBuffer(data.length));
shared.set(data);
const cut = (bytes) =>
  Array.from({ length: Math.floor(bytes.length / CLUSTER) }, (_, i) =>
    bytes.subarray(i * CLUSTER, (i + 1) * CLUSTER),
  );

/** Batches of `size`, `depth` of them at a time. */
async function pump(items, size, depth, run) {
  let next = 0;
  const one = async () => {
    while (next < items.length) {
      const batch = items.slice(next, next + size);
      next += batch.length;
      await run(batch);
    }
  };
  await Promise.all(Array.from({ length: depth }, one));
}

async function measure(name, bytes, work) {
  const cpu = process.cpuUsage();
  const loop = performance.eventLoopUtilization();
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1000;
  const used = process.cpuUsage(cpu);
  const busy = performance.eventLoopUtilization(loop).utilization;
  const cores = (used.user + used.system) / 1e6 / seconds;
  console.log(
    `${name.padEnd(44)} ${(bytes / 1048576 / seconds).toFixed(0).padStart(5)} MiB/s` +
      `  cores ${cores.toFixed(2)}  main thread ${(busy * 100).toFixed(0)}%`,
  );
}

for (const threads of [1, 2]) {
  const codec = createCodec("deflate", { threads });
  await codec.compress(cut(data).slice(0, 8), CLUSTER);
  for (const kind of ["shared", "private"]) {
    const clusters = cut(kind === "shared" ? shared : data);
    const payloads = [];
    for (const [size, depth] of [
      [16, 2],
      [32, 1],
      [32, 2],
      [64, 2],
    ]) {
      await measure(`deflate ${kind}, ${threads} threads, ${depth} x ${size}`, data.length, () =>
        pump(clusters, size, depth, (batch) => codec.compress(batch, CLUSTER - 1)),
      );
    }
    for (const cluster of clusters)
      payloads.push((await codec.compress([cluster], CLUSTER - 1))[0]);
    const output =
      kind === "shared" ? new SharedArrayBuffer(data.length) : new ArrayBuffer(data.length);
    const targets = cut(new Uint8Array(output));
    const items = payloads
      .map((payload, i) => ({ payload, target: targets[i] }))
      .filter(({ payload }) => payload !== undefined);
    const bytes = items.length * CLUSTER;
    for (const [size, depth] of [
      [16, 2],
      [32, 2],
    ]) {
      await measure(`inflate ${kind}, ${threads} threads, ${depth} x ${size}`, bytes, () =>
        pump(items, size, depth, (batch) => codec.decompressMany(batch)),
      );
    }
    await measure(`inflate ${kind}, one by one, this thread`, bytes, async () => {
      for (const { payload, target } of items) await codec.decompress(payload, target);
    });
  }
  await codec.close();
}
console.log(`peak resident set ${process.resourceUsage().maxRSS >> 10} MiB`);
