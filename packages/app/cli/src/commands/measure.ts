/** `blk measure`: how long the file of a new image would become. */
import type { MeasureResult } from "@blocklayer/block-api";
import { measureImage, type MeasureImageOptions, parseOptionString } from "@blocklayer/image";
import { COMMON_OPTIONS, outputFormat, parseWords, UsageError } from "../command-line.js";
import { openOptions } from "../open-options.js";
import { jsonText } from "../output/json.js";
import { DRIVERS } from "../registry.js";
import { sizeWord } from "../size-word.js";
import { openSource, snapshotOption } from "../snapshot-source.js";
import type { Terminal } from "../terminal.js";

export async function measure(args: readonly string[], terminal: Terminal): Promise<number> {
  const { quiet: _, ...common } = COMMON_OPTIONS;
  const { values, positionals } = parseWords(args, {
    ...common,
    output: { type: "string" },
    "output-format": { type: "string", short: "O" },
    options: { type: "string", short: "o", multiple: true },
    size: { type: "string" },
    "snapshot-param": { type: "string", short: "l" },
  });
  const output = outputFormat(values.output);
  const sizeBytes = values.size === undefined ? undefined : sizeWord(values.size);
  const [filename, ...rest] = positionals;
  if (rest.length > 0) throw new UsageError("At most one filename argument is allowed.");
  const image = { filename, sizeBytes, snapshot: values["snapshot-param"] };
  refuseContradictions(image, values["image-opts"] === true || values.format !== undefined);
  const open = openOptions(values, terminal);
  const plan = {
    drivers: DRIVERS,
    format: values["output-format"] ?? "raw",
    options: parseOptionString(values.options ?? []),
    signal: terminal.signal,
  };
  if (filename === undefined) {
    print(await measureImage({ ...plan, content: sizeBytes ?? 0 }), output, terminal);
    return 0;
  }
  const view = snapshotOption(image.snapshot);
  await using source = await openSource(filename, { ...open, ...view });
  const options: MeasureImageOptions = { ...plan, content: source };
  print(await measureImage(options), output, terminal);
  return 0;
}

interface MeasuredThing {
  readonly filename: string | undefined;
  readonly sizeBytes: number | undefined;
  readonly snapshot: string | undefined;
}

function refuseContradictions(
  { filename, sizeBytes, snapshot }: MeasuredThing,
  namesFormat: boolean,
): void {
  if (filename === undefined && (namesFormat || snapshot !== undefined)) {
    throw new UsageError("--image-opts, -f, and -l require a filename argument.");
  }
  if (filename === undefined && sizeBytes === undefined) {
    throw new UsageError("Either --size N or one filename must be specified.");
  }
  if (filename !== undefined && sizeBytes !== undefined) {
    throw new UsageError("--size N cannot be used together with a filename.");
  }
}

function print(result: MeasureResult, output: "human" | "json", terminal: Terminal): void {
  const { requiredBytes, fullyAllocatedBytes, bitmapsBytes } = result;
  if (output === "json") {
    terminal.out(
      jsonText({
        ...(bitmapsBytes === undefined ? {} : { bitmaps: bitmapsBytes }),
        required: requiredBytes,
        "fully-allocated": fullyAllocatedBytes,
      }),
    );
    return;
  }
  const lines = [
    `required size: ${requiredBytes}`,
    `fully allocated size: ${fullyAllocatedBytes}`,
    ...(bitmapsBytes === undefined ? [] : [`bitmaps size: ${bitmapsBytes}`]),
  ];
  terminal.out(`${lines.join("\n")}\n`);
}
