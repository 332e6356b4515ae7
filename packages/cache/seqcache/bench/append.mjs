/**
 * Cost of the cache without any I/O: `node bench/append.mjs`. Appends of 20 KiB, each finished cluster
 * handed out and discarded at once; then lookups in a cache of 64 clusters.
 */
import { SeqCache } from "@blocklayer/seqcache";

const CLUSTER = 65536;
const PIECE = 20 * 1024;
const spare = [];
const allocator = {
  allocate: (length) => spare.pop() ?? new Uint8Array(length),
  release: (buffer) => void spare.push(buffer),
};
const payload = new Uint8Array(PIECE).fill(7);

function time(name, count, work) {
  work(count);
  let best = Infinity;
  for (let round = 0; round < 7; round++) {
    const start = performance.now();
    work(count);
    best = Math.min(best, ((performance.now() - start) * 1e6) / count);
  }
  console.log(`${name.padEnd(44)} ${best.toFixed(0).padStart(6)} ns`);
}

const cache = new SeqCache({ clusterSize: CLUSTER, allocator });
let offset = 2 ** 40;
time("copy of 20 KiB alone", 20_000, (count) => {
  const into = new Uint8Array(CLUSTER);
  for (let i = 0; i < count; i++) into.set(payload, (i & 1) * PIECE);
});
time("append of 20 KiB, with its share of the flush", 20_000, (count) => {
  for (let i = 0; i < count; i++) {
    cache.write(offset, payload);
    offset += PIECE;
    const flush = cache.nextFlush();
    if (flush !== undefined) cache.discard(flush.token);
  }
});
const small = new Uint8Array(64);
time("append of 64 bytes, with its share", 200_000, (count) => {
  for (let i = 0; i < count; i++) {
    cache.write(offset, small);
    offset += 64;
    const flush = cache.nextFlush();
    if (flush !== undefined) cache.discard(flush.token);
  }
});
cache.dropAll();

const target = new Uint8Array(PIECE);
time("read of 20 KiB, cache empty", 1_000_000, (count) => {
  for (let i = 0; i < count; i++) cache.read(i * 4096, target);
});
for (let i = 0; i < 64; i++) cache.write(2 ** 41 + 2 * i * CLUSTER, new Uint8Array(CLUSTER));
time("read of 20 KiB, miss beside 64 clusters", 1_000_000, (count) => {
  for (let i = 0; i < count; i++) cache.read(2 ** 41 + (2 * (i & 63) + 1) * CLUSTER, target);
});
time("read of 512 bytes, hit among 64 clusters", 200_000, (count) => {
  const sector = target.subarray(0, 512);
  for (let i = 0; i < count; i++) cache.read(2 ** 41 + 2 * (i & 63) * CLUSTER + 512, sector);
});
time("read of 20 KiB, hit among 64 clusters", 50_000, (count) => {
  for (let i = 0; i < count; i++) cache.read(2 ** 41 + 2 * (i & 63) * CLUSTER, target);
});
cache.dropAll();
cache.free();
