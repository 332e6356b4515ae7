/** Cost of a hit: `node bench/peek.mjs`. Random tables of a cache of 256 slices and of 8192. */
import { L2Cache } from "@blocklayer/metadata-cache";

const store = { read: (_at, into) => void into.fill(0), write() {}, sync() {} };
for (const tables of [256, 8192]) {
  for (const spread of [1, 1024]) {
    const cache = new L2Cache({ name: "L2", maxTables: tables, store });
    for (let i = 0; i < tables; i++) cache.release(cache.get(i * spread * 4096));
    const offsets = Array.from({ length: 65536 }, (_, i) => ((i * 7919) % tables) * spread * 4096);
    const time = (name, work) => {
      for (let round = 0; round < 20; round++) work();
      const start = performance.now();
      for (let round = 0; round < 40; round++) work();
      const ns = ((performance.now() - start) * 1e6) / 40 / offsets.length;
      console.log(
        `${name.padEnd(24)} ${tables} tables, file of ${(tables * spread) >> 8} MiB: ${ns.toFixed(1)} ns`,
      );
    };
    let sum = 0;
    time("peek + entry", () => {
      for (const at of offsets) {
        const table = cache.peek(at);
        sum += cache.entryLow(table, 5) + cache.entryHigh(table, 5);
      }
    });
    time("get + release", () => {
      for (const at of offsets) cache.release(cache.get(at));
    });
    time("peek of the same table", () => {
      for (let i = 0; i < offsets.length; i++) cache.peek(4096 * spread);
    });
    if (sum !== 0) throw new Error("unexpected");
  }
}
