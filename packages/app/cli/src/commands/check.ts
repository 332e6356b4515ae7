/** `blk check`: is the metadata sound? Reads only, unless `-r` says to mend it. */
import type { CheckResult, RepairKind } from "@blocklayer/block-api";
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
import { checkText, repairText } from "../output/check-text.js";
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
  const fix = repairKind(values.repair);
  const filename = oneFilename(positionals);
  const options = openOptions(values, terminal);
  await using disk = await whileOpening(filename, () =>
    // A check is of this image alone, and works where the chain is broken.
    openImage(filename, { ...options, backing: null, readOnly: fix === undefined, forCheck: true }),
  );
  const isQuiet = values.quiet === true;
  try {
    const { report, result } = await checkImage(disk, {
      filename,
      signal: terminal.signal,
      ...(fix === undefined ? {} : { fix }),
      onDropped: (message) => terminal.err(`${message}\n`),
      onRepaired: (repaired) => {
        printFindings(repaired, terminal);
        if (output === "human" && !isQuiet) terminal.out(repairText(repaired));
      },
    });
    printFindings(result, terminal);
    if (output === "json") terminal.out(jsonText(report));
    else if (!isQuiet) terminal.out(checkText(report));
    return exitStatus(report);
  } catch (error) {
    if (!hasCode(error, "ENOTSUP")) throw error;
    terminal.err(`${terminal.programName}: This image format does not support checks\n`);
    return EXIT.noChecks;
  }
}

function repairKind(word: string | undefined): RepairKind | undefined {
  if (word === undefined || word === "leaks" || word === "all") return word;
  throw new UsageError(`Unknown option value for -r (expecting 'leaks' or 'all'): ${word}`, true);
}

/** What was dropped is told already, line by line: all of it, whatever the list has room for. */
function printFindings({ findings, findingsOmitted }: CheckResult, terminal: Terminal): void {
  const lines = findings.filter(({ severity }) => severity !== "dropped");
  terminal.err(lines.map(({ message }) => `${message}\n`).join(""));
  if (findingsOmitted > 0) terminal.err(`… and ${findingsOmitted} more\n`);
}

function exitStatus(report: ImageCheck): number {
  if (report["check-errors"] > 0) return EXIT.notChecked;
  if ((report.corruptions ?? 0) > 0) return EXIT.corrupt;
  return (report.leaks ?? 0) > 0 ? EXIT.leaks : EXIT.clean;
}
