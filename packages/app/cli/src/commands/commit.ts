/** `blk commit`: what an image holds, written into its backing file. */
import { commitImage } from "@blocklayer/image";
import { COMMON_OPTIONS, parseWords, UsageError } from "../command-line.js";
import { whileWorkingOn } from "../naming.js";
import { writeOptions } from "../open-options.js";
import { Progress } from "../output/progress.js";
import { sizeWord } from "../size-word.js";
import type { Terminal } from "../terminal.js";

export async function commit(args: readonly string[], terminal: Terminal): Promise<number> {
  const { help, format, object, "image-opts": imageOpts, quiet } = COMMON_OPTIONS;
  const { values, positionals } = parseWords(args, {
    help,
    format,
    object,
    "image-opts": imageOpts,
    quiet,
    base: { type: "string", short: "b" },
    drop: { type: "boolean", short: "d" },
    progress: { type: "boolean", short: "p" },
    "rate-limit": { type: "string", short: "r" },
    cache: { type: "string", short: "t" },
  });
  const rate = values["rate-limit"];
  const bytesPerSecond = rate === undefined ? undefined : sizeWord(rate, "rate limit");
  const [filename, ...rest] = positionals;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError("Expecting one image file name", true);
  }
  const { forceShare: _, ...open } = writeOptions(values, terminal);
  const progress = new Progress(terminal, values.progress === true && values.quiet !== true);
  try {
    await whileWorkingOn(filename, () =>
      commitImage(filename, {
        ...open,
        onProgress: progress.update,
        ...(values.base === undefined ? {} : { base: values.base }),
        ...(values.drop === true ? { keep: true } : {}),
        ...(bytesPerSecond === undefined ? {} : { rateLimitBytesPerSecond: bytesPerSecond }),
      }),
    );
    progress.finish();
  } finally {
    progress.end();
  }
  if (values.quiet !== true) terminal.out("Image committed.\n");
  return 0;
}
