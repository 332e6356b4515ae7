/**
 * The process around `blk`: its name, its streams, its signals, its exit status.
 *
 * A first SIGINT, SIGTERM or SIGHUP aborts the command, which then cleans up behind itself; the process ends by
 * that same signal, so that shells and make see it. A second one ends it at once. A reader that goes away
 * (`blk map … | head`) aborts it as well, without a word; the status is then what shells show for SIGPIPE.
 */
import { basename } from "node:path";
import { createInterface } from "node:readline";
import { encodeName, hasOddBytes } from "@blocklayer/bytes";
import { rawArguments } from "./raw-arguments.js";
import { run } from "./program.js";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** 128 + SIGPIPE. Node ignores the signal itself. */
const STATUS_BROKEN_PIPE = 141;

const controller = new AbortController();
let stoppedBy: NodeJS.Signals | undefined;
let isPipeBroken = false;

for (const signal of SIGNALS) {
  process.once(signal, () => {
    stoppedBy ??= signal;
    controller.abort();
  });
}
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    isPipeBroken = true;
    controller.abort();
  });
}

const status = await run(rawArguments(), {
  programName: basename(process.argv[1] ?? "blk").replace(/\.[cm]?js$/, ""),
  out: (text) => {
    if (!isPipeBroken) process.stdout.write(asStored(text));
  },
  err: (text) => {
    if (!isPipeBroken) process.stderr.write(asStored(text));
  },
  lines: () => {
    const lines = createInterface({ input: process.stdin });
    controller.signal.addEventListener("abort", () => lines.close());
    return lines;
  },
  signal: controller.signal,
});

process.exitCode = isPipeBroken ? STATUS_BROKEN_PIPE : status;
if (stoppedBy !== undefined) process.kill(process.pid, stoppedBy);

/** Names go out as the bytes that they are. */
function asStored(text: string): string | Uint8Array {
  return hasOddBytes(text) ? encodeName(text) : text;
}
