// In the place of src/worker.mjs: seed 2 goes round in circles, 3 ends its process, 11 fails late, 12 at once, others hold.
process.on("disconnect", () => process.exit(1));

/** Longer than any test waits; not for ever, should nobody be left to end it. */
const CIRCLING_MS = 60_000;
const LATE_MS = 700;

process.on("message", ({ job: { seed } }) => {
  process.send({ run: {} }, () => {
    const start = performance.now();
    if (seed === 3) process.exit(7);
    while (seed === 2 && performance.now() - start < CIRCLING_MS);
    const failure = seed > 10 ? { message: "fails", config: {}, operations: [] } : undefined;
    const answer = () => process.send({ verdict: { seed, totals: {}, failure } });
    setTimeout(answer, seed === 11 ? LATE_MS : 0);
  });
});
