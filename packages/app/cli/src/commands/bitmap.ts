/** `blk bitmap`: dirty bitmaps that an image keeps are made, removed, cleared, switched and merged. */
import type { BlockBackend } from "@blocklayer/block-graph";
import { type BitmapAction, editBitmap, openImage } from "@blocklayer/image";
import { COMMON_OPTIONS, parseWords, UsageError } from "../command-line.js";
import { whileOpening } from "../naming.js";
import { openOptions } from "../open-options.js";
import { DRIVERS } from "../registry.js";
import { sizeWord } from "../size-word.js";
import type { Terminal } from "../terminal.js";

const OPTIONS = {
  ...COMMON_OPTIONS,
  "source-file": { type: "string", short: "b" },
  "source-format": { type: "string", short: "F" },
  granularity: { type: "string", short: "g" },
  add: { type: "boolean" },
  remove: { type: "boolean" },
  clear: { type: "boolean" },
  enable: { type: "boolean" },
  disable: { type: "boolean" },
  merge: { type: "string", multiple: true },
} as const;

const NEED = "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge";

/** What the words ask for, in their order. */
interface BitmapWords {
  readonly actions: readonly BitmapAction[];
  readonly filename: string;
  readonly bitmap: string;
}

export async function bitmap(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, OPTIONS);
  const { actions, filename, bitmap: name } = readWords(args, values, positionals);
  const options = openOptions({ ...values, "force-share": false }, terminal);
  const sourceFile = values["source-file"];
  await using disk = await whileOpening(filename, () =>
    openImage(filename, { ...options, readOnly: false }),
  );
  await using source =
    sourceFile === undefined
      ? undefined
      : await openSource(sourceFile, values["source-format"], terminal);
  await editBitmap(disk, name, source === undefined ? actions : withSource(actions, source));
  // Closing reports what could not be stored.
  await disk.close();
  return 0;
}

/** Options may come in any order and more than once: each is one change. */
function readWords(
  args: readonly string[],
  values: ReturnType<typeof parseWords<typeof OPTIONS>>["values"],
  positionals: readonly string[],
): BitmapWords {
  const actions = actionsOf(args, values);
  if (actions.length === 0) throw new UsageError(NEED);
  if (values.granularity !== undefined && values.add !== true) {
    throw new UsageError("granularity only supported with --add");
  }
  if (values["source-file"] !== undefined && values.merge === undefined) {
    throw new UsageError("Merge bitmap source file only supported with --merge");
  }
  if (values["source-format"] !== undefined && values["source-file"] === undefined) {
    throw new UsageError("-F only supported with -b");
  }
  const [filename, name, ...rest] = positionals;
  if (filename === undefined || name === undefined || rest.length > 0) {
    throw new UsageError("Expecting filename and bitmap name");
  }
  return { actions, filename, bitmap: name };
}

function actionsOf(
  args: readonly string[],
  values: { readonly granularity?: string | undefined; readonly merge?: string[] | undefined },
): BitmapAction[] {
  const granularityBytes =
    values.granularity === undefined ? undefined : sizeWord(values.granularity, "granularity");
  const sources = [...(values.merge ?? [])];
  const actions: BitmapAction[] = [];
  for (const word of args) {
    if (word === "--") break;
    const kind = /^--(add|remove|clear|enable|disable|merge)(?:=|$)/.exec(word)?.[1];
    if (kind === undefined) continue;
    if (kind === "merge") {
      const source = sources.shift();
      if (source !== undefined) actions.push({ kind, source });
    } else if (kind === "add") {
      actions.push({ kind, ...(granularityBytes === undefined ? {} : { granularityBytes }) });
    } else actions.push({ kind: kind as "remove" | "clear" | "enable" | "disable" });
  }
  return actions;
}

function withSource(actions: readonly BitmapAction[], from: BlockBackend): BitmapAction[] {
  return actions.map((action) => (action.kind === "merge" ? { ...action, from } : action));
}

async function openSource(
  filename: string,
  format: string | undefined,
  terminal: Terminal,
): Promise<BlockBackend> {
  return await whileOpening(filename, () =>
    openImage(filename, {
      drivers: DRIVERS,
      signal: terminal.signal,
      ...(format === undefined ? {} : { format }),
    }),
  );
}
