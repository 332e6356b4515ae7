/** `blk rebase`: another backing file for an image. */
import { rebaseImage, type RebaseOptions } from "@blocklayer/image";
import { COMMON_OPTIONS, parseWords, UsageError } from "../command-line.js";
import { whileWorkingOn } from "../naming.js";
import { cacheMode, writeOptions } from "../open-options.js";
import { Progress } from "../output/progress.js";
import type { Terminal } from "../terminal.js";

export async function rebase(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, {
    ...COMMON_OPTIONS,
    backing: { type: "string", short: "b" },
    "backing-format": { type: "string", short: "F" },
    unsafe: { type: "boolean", short: "u" },
    progress: { type: "boolean", short: "p" },
    cache: { type: "string", short: "t" },
    "source-cache": { type: "string", short: "T" },
  });
  const unsafe = values.unsafe === true;
  const [filename, ...rest] = positionals;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError("Expecting one image file name", true);
  }
  if (values.backing === undefined && !unsafe) {
    throw new UsageError("Must specify backing file (-b) or use unsafe mode (-u)", true);
  }
  const { "source-cache": sourceCache, "backing-format": format, ...own } = values;
  const { forceShare: _, backing: __, ...open } = writeOptions(own, terminal);
  const progress = new Progress(terminal, values.progress === true && values.quiet !== true);
  const options: RebaseOptions = {
    ...open,
    unsafe,
    onProgress: progress.update,
    ...(sourceCache === undefined ? {} : { sourceCache: cacheMode(sourceCache, "source cache") }),
    ...(values.backing === undefined || values.backing === ""
      ? {}
      : { backing: { filename: values.backing, ...(format === undefined ? {} : { format }) } }),
  };
  try {
    await whileWorkingOn(filename, () => rebaseImage(filename, options));
    progress.finish();
    return 0;
  } finally {
    progress.end();
  }
}
