// In the place of src/worker.mjs: an even seed goes round in circles, one in three ends its process, others are well.
process.on("disconnect", () => process.exit(1));

process.on("message", ({ job: { seed } }) => {
  process.send({ run: {} }, () => {
    if (seed % 3 === 0) process.exit(7);
    if (seed % 2 === 0) for (;;);
    process.send({ verdict: { seed, totals: {} } });
  });
});
