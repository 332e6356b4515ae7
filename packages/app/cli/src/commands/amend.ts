/** `blk amend`: other options of the format, for an image that is there. */
import { amendImage, openImage, parseOptionString } from "@blocklayer/image";
import { COMMON_OPTIONS, parseWords, UsageError } from "../command-line.js";
import { whileOpening } from "../naming.js";
import { amendHelp } from "../option-help.js";
import { writeOptions } from "../open-options.js";
import { Progress } from "../output/progress.js";
import { DRIVERS } from "../registry.js";
import type { Terminal } from "../terminal.js";

export async function amend(args: readonly string[], terminal: Terminal): Promise<number> {
  const { help, format, object, "image-opts": imageOpts, quiet } = COMMON_OPTIONS;
  const { values, positionals } = parseWords(args, {
    help,
    format,
    object,
    "image-opts": imageOpts,
    quiet,
    options: { type: "string", short: "o", multiple: true },
    progress: { type: "boolean", short: "p" },
    cache: { type: "string", short: "t" },
    // Only encrypted images have changes that need it.
    force: { type: "boolean" },
  });
  if (values.options === undefined) throw new UsageError("Must specify options (-o)", true);
  const options = parseOptionString(values.options);
  const wantsHelp = "help" in options;
  if (wantsHelp && values.format !== undefined) {
    terminal.out(amendHelp(values.format));
    return 0;
  }
  const [filename, ...rest] = positionals;
  if (filename === undefined || rest.length > 0) {
    throw new UsageError("Expecting one image file name");
  }
  const open = writeOptions(values, terminal);
  await using disk = await whileOpening(filename, () => openImage(filename, open));
  if (wantsHelp) {
    terminal.out(amendHelp(disk.root.driverName));
    return 0;
  }
  const progress = new Progress(terminal, values.progress === true && values.quiet !== true);
  try {
    await amendImage(disk, {
      drivers: DRIVERS,
      options,
      onProgress: progress.update,
      signal: terminal.signal,
    });
    progress.finish();
    return 0;
  } finally {
    progress.end();
  }
}
