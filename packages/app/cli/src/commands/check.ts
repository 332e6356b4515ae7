/** `blk check`: is the metadata sound? Reads only. */
import { hasCode } from "@blocklayer/bytes";
import { checkImage, type ImageCheck, openImage } from "@blocklayer/image";
import {
  COMMON_OPTIONS,
  oneFilename,
  outputFormat,
  parseWords,
  UsageError,
} from "../command-line.js";
import { whileOpening } from "../naming.js";
import { openOptions } from "../open-options.js";
import { checkText } from "../output/check-text.js";
import { jsonText } from "../output/json.js";
import type { Terminal } from "../terminal.js";

/** What the exit status tells, as in qemu-img's manual. */
const EXIT = { clean: 0, notChecked: 1, corrupt: 2, leaks: 3, noChecks: 63 } as const;

export async function check(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, {
    ...COMMON_OPTIONS,
    output: { type: "string" },
    repair: { type: "string", short: "r" },
    "source-cache": { type: "string", short: "T" },
  });
  const output = outputFormat(values.output);
  if (values.repair !== undefined) {
    if (values.repair !== "leaks" && values.repair !== "all") {
      throw new UsageError(
        `Unknown option value for -r (expecting 'leaks' or 'all'): ${values.repair}`,
        true,
      );
    }
    throw new UsageError("Repair (-r) is not supported by this version; the image is untouched");
  }
  const filename = oneFilename(positionals);
  const options = openOptions(values, terminal);
  await using disk = await whileOpening(filename, () =>
    // A check is of this image alone, and works where the chain is broken.
    openImage(filename, { ...options, backing: null }),
  );
  try {
    const { report, result } = await checkImage(disk, { filename, signal: terminal.signal });
    for (const { message } of result.findings) terminal.err(`${message}\n`);
    if (result.findingsOmitted > 0) terminal.err(`… and ${result.findingsOmitted} more\n`);
    if (output === "json") terminal.out(jsonText(report));
    else if (values.quiet !== true) terminal.out(checkText(report));
    return exitStatus(report);
  } catch (error) {
    if (!hasCode(error, "ENOTSUP")) throw error;
    terminal.err(`${terminal.programName}: This image format does not support checks\n`);
    return EXIT.noChecks;
  }
}

function exitStatus(report: ImageCheck): number {
  if (report["check-errors"] > 0) return EXIT.notChecked;
  if ((report.corruptions ?? 0) > 0) return EXIT.corrupt;
  return (report.leaks ?? 0) > 0 ? EXIT.leaks : EXIT.clean;
}
