/** `blk info`: what an image says about itself. */
import { type ImageInfo, imageInfo, imageInfoChain } from "@blocklayer/image";
import { COMMON_OPTIONS, oneFilename, outputFormat, parseWords } from "../command-line.js";
import { whileOpening } from "../naming.js";
import { openOptions } from "../open-options.js";
import { infoText } from "../output/info-text.js";
import { jsonText } from "../output/json.js";
import type { Terminal } from "../terminal.js";

export async function info(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, {
    ...COMMON_OPTIONS,
    output: { type: "string" },
    "backing-chain": { type: "boolean" },
  });
  const output = outputFormat(values.output);
  const filename = oneFilename(positionals);
  const options = openOptions(values, terminal);
  const chain = values["backing-chain"] === true;
  const infos: readonly ImageInfo[] = chain
    ? await whileOpening(filename, () => imageInfoChain(filename, options))
    : [await whileOpening(filename, () => imageInfo(filename, options))];
  if (output === "json") terminal.out(jsonText(chain ? infos : infos[0]));
  else terminal.out(infos.map(infoText).join("\n"));
  return 0;
}
