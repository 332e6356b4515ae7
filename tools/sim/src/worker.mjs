// A process that runs one seed after the other, as its parent (pool.mjs) sends them.
import { introduceDefect } from "./defects.mjs";

let runJob;

// Whoever started it is gone.
process.on("disconnect", () => process.exit(1));

process.on("message", (message) => void answer(message));

async function answer(message) {
  try {
    if (runJob === undefined) {
      if (message.defect !== undefined) introduceDefect(message.defect);
      ({ runJob } = await import("./job.mjs"));
    }
    const verdict = await runJob(message.job, (problem) => process.send({ run: { problem } }));
    process.send({ verdict });
  } catch (error) {
    process.send({ crash: error.stack ?? String(error) });
  }
}
