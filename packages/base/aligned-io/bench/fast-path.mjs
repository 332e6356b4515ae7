/** What AlignedIo adds to a request. Run by hand after a build: `node bench/fast-path.mjs` */
import { IoVector } from "@blocklayer/bytes";
import { AlignedArena, AlignedIo } from "../dist/index.js";

const ROUNDS = 1_000_000;
const arena = new AlignedArena({ maxBytes: 64 * 1024 * 1024 });

function device(requestAlignment, memoryAlignment, answer) {
  return {
    lengthBytes: 2 ** 40,
    limits: { requestAlignment, memoryAlignment, maxTransfer: 2 ** 20 },
    readv: answer,
    writev: answer,
  };
}

function print(name, nanoseconds) {
  console.log(`${name.padEnd(64)} ${nanoseconds.toFixed(1).padStart(8)} ns`);
}

/** Best of five, in nanoseconds an operation. */
async function measure(name, rounds, run) {
  await run(rounds / 10);
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5; i++) {
    const start = process.hrtime.bigint();
    await run(rounds);
    best = Math.min(best, Number(process.hrtime.bigint() - start) / rounds);
  }
  print(name, best);
}

const aligned = IoVector.of(arena.tryAllocate(4096).bytes);
const heap = IoVector.of(new Uint8Array(4096));
const small = IoVector.of(new Uint8Array(100));
const resolved = Promise.resolve();
const now = () => undefined;
const soon = () => resolved;
const FAR = 2 ** 39;

const bare = device(1, 1, now);
await measure("aligned read, answered at once: the device alone", ROUNDS * 5, (n) => {
  for (let i = 0; i < n; i++) void bare.readv(FAR + (i & 1023) * 4096, heap);
});
const bytewise = new AlignedIo(bare, arena);
await measure("aligned read, answered at once: requestAlignment 1", ROUNDS * 5, (n) => {
  for (let i = 0; i < n; i++) void bytewise.readv(FAR + (i & 1023) * 4096, heap);
});
const direct = new AlignedIo(device(512, 512, now), arena);
await measure("aligned read, answered at once: direct I/O limits", ROUNDS * 5, (n) => {
  for (let i = 0; i < n; i++) void direct.readv(FAR + (i & 1023) * 4096, aligned);
});
await measure("aligned write, answered at once: direct I/O limits", ROUNDS * 5, (n) => {
  for (let i = 0; i < n; i++) void direct.writev(FAR + (i & 1023) * 4096, aligned);
});
const later = new AlignedIo(device(512, 512, soon), arena);
await measure("aligned read, answered with a promise (await included)", ROUNDS, async (n) => {
  for (let i = 0; i < n; i++) await later.readv(FAR, aligned);
});
await measure("aligned write, answered with a promise (await included)", ROUNDS, async (n) => {
  for (let i = 0; i < n; i++) await later.writev(FAR, aligned);
});
await measure("bounced read of 4 KiB", ROUNDS / 5, async (n) => {
  for (let i = 0; i < n; i++) await later.readv(FAR, heap);
});
await measure("bounced write of 4 KiB", ROUNDS / 5, async (n) => {
  for (let i = 0; i < n; i++) await later.writev(FAR, heap);
});
await measure("read-modify-write of 100 bytes", ROUNDS / 5, async (n) => {
  for (let i = 0; i < n; i++) await later.writev(FAR + 3, small);
});
for (const size of [4096, 65536, 1048576]) {
  await measure(`arena: allocate and release ${size} bytes`, ROUNDS, (n) => {
    for (let i = 0; i < n; i++) arena.tryAllocate(size).release();
  });
}
