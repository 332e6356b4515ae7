/** What a lock costs when nobody is in the way. Run by hand after a build: `node bench/locks.mjs` */
import { CoMutex, CoRwLock, CoSemaphore, RangeLock } from "../dist/index.js";

const ROUNDS = 2_000_000;

/** Best of five, in nanoseconds an operation. */
function measure(name, rounds, run) {
  run(rounds / 10);
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5; i++) {
    const start = process.hrtime.bigint();
    run(rounds);
    best = Math.min(best, Number(process.hrtime.bigint() - start) / rounds);
  }
  console.log(`${name.padEnd(60)} ${best.toFixed(1).padStart(8)} ns`);
}

const mutex = new CoMutex();
measure("CoMutex: acquire and release", ROUNDS, (n) => {
  for (let i = 0; i < n; i++) mutex.acquire().release();
});

const rw = new CoRwLock();
measure("CoRwLock: acquireRead and release", ROUNDS, (n) => {
  for (let i = 0; i < n; i++) rw.acquireRead().release();
});

const semaphore = new CoSemaphore(16);
measure("CoSemaphore: acquire and release", ROUNDS, (n) => {
  for (let i = 0; i < n; i++) semaphore.acquire().release();
});

for (const heldCount of [0, 64, 512, 4096]) {
  const lock = new RangeLock();
  for (let i = 0; i < heldCount; i++) void lock.acquire(i * 8192, 4096);
  measure(`RangeLock: acquire and release at random, ${heldCount} held`, ROUNDS / 4, (n) => {
    let at = 1;
    for (let i = 0; i < n; i++) {
      at = (at * 48271) % 2147483647;
      lock.acquire((at % (heldCount + 1)) * 8192 + 4096, 4096).release();
    }
  });
  measure(`RangeLock: overlaps, ${heldCount} held`, ROUNDS / 4, (n) => {
    for (let i = 0; i < n; i++) lock.overlaps((i % (heldCount + 1)) * 8192 + 4096, 4096);
  });
}

const contended = new CoMutex();
const start = process.hrtime.bigint();
const waits = 200_000;
let held = contended.acquire();
for (let i = 0; i < waits; i++) {
  const next = contended.acquire();
  held.release();
  held = await next;
}
held.release();
const each = Number(process.hrtime.bigint() - start) / waits;
console.log(
  `${"CoMutex: a wait, from acquire to lease".padEnd(60)} ${each.toFixed(1).padStart(8)} ns`,
);
