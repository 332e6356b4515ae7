/** `blk map`: where every byte of the disk comes from. */
import { mapImage, openImage } from "@blocklayer/image";
import { COMMON_OPTIONS, oneFilename, outputFormat, parseWords } from "../command-line.js";
import { whileOpening } from "../naming.js";
import { openOptions } from "../open-options.js";
import { MAP_HEADING, mapJson, mapText } from "../output/map-text.js";
import { sizeWord } from "../size-word.js";
import type { Terminal } from "../terminal.js";

export async function map(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, {
    ...COMMON_OPTIONS,
    output: { type: "string" },
    "start-offset": { type: "string", short: "s" },
    "max-length": { type: "string", short: "l" },
  });
  const output = outputFormat(values.output);
  const filename = oneFilename(positionals);
  const start = sizeOption(values["start-offset"], "start offset");
  const max = sizeOption(values["max-length"], "max length");
  const options = openOptions(values, terminal);
  await using disk = await whileOpening(filename, () => openImage(filename, options));
  const extents = mapImage(disk, {
    ...(start === undefined ? {} : { start }),
    ...(max === undefined ? {} : { max }),
    signal: terminal.signal,
  });
  if (output === "human") {
    terminal.out(MAP_HEADING);
    for await (const entry of extents) {
      const line = mapText(entry);
      if (line !== "") terminal.out(line);
    }
    return 0;
  }
  let before = "[";
  for await (const entry of extents) {
    terminal.out(before + mapJson(entry));
    before = ",\n";
  }
  terminal.out(before === "[" ? "[]\n" : "]\n");
  return 0;
}

function sizeOption(word: string | undefined, what: string): number | undefined {
  return word === undefined ? undefined : sizeWord(word, what);
}
