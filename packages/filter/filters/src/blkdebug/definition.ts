/**
 * The `blkdebug` driver for a graph's registry: its options and its file names.
 *
 * Above: whoever composes a graph. Below: driver.ts, rules.ts, rules-file.ts.
 *
 * Rules come as options in QEMU's shape, nested or dotted (`inject-error.0.event=write_aio`), and from the file
 * that `config` names. Reading files is no business of this package: who wants `config` gives a reader.
 */
import {
  type DriverDefinition,
  type OptionSchema,
  type OptionValues,
  stringOption,
} from "@blocklayer/block-api";
import { assert, BlockError, type MaybePromise } from "@blocklayer/bytes";
import { BlkdebugDriver } from "./driver.js";
import type { LimitOverrides } from "./limits.js";
import { type BlkdebugRules, injectRule, stateRule, suspendRule } from "./rules.js";
import { parseRulesFile } from "./rules-file.js";

/** What the driver gets from outside. */
export interface BlkdebugSurroundings {
  /** The text of the file that `config` names. */
  readonly readConfig: (filename: string) => MaybePromise<string>;
}

const PREFIX = "blkdebug:";

const OPEN_OPTIONS: OptionSchema = {
  config: { type: "string", help: "File of rules" },
  "inject-error.*": { type: "value", help: "Rules that fail requests" },
  "set-state.*": { type: "value", help: "Rules that change the state" },
  "suspend.*": { type: "value", help: "Rules that park requests" },
  align: { type: "size", help: "Alignment of requests" },
  "max-transfer": { type: "size", help: "Longest read or write" },
  "opt-write-zero": { type: "size", help: "Alignment of efficient zero writes" },
  "max-write-zero": { type: "size", help: "Longest zero write" },
  "opt-discard": { type: "size", help: "Alignment of useful discards" },
  "max-discard": { type: "size", help: "Longest discard" },
};

/** The driver without a way to read rules files: `config` is refused. */
export const blkdebugDriver: DriverDefinition = createBlkdebugDriver();

/** The driver. */
export function createBlkdebugDriver(surroundings?: BlkdebugSurroundings): DriverDefinition {
  return {
    name: "blkdebug",
    kind: "filter",
    openOptions: OPEN_OPTIONS,
    protocolPrefixes: [PREFIX],
    parseFilename,
    async open(context): Promise<BlkdebugDriver> {
      const child = context.children.filtered;
      assert(child !== undefined, "a filter has a child");
      const rules = rulesOf(context.options);
      const more = await rulesFromFile(context.options, surroundings);
      const overrides = overridesOf(context.options);
      return new BlkdebugDriver(child, joined(more, rules), {
        ...overrides,
        readOnly: context.readOnly,
      });
    },
  };
}

/**
 * `blkdebug:rules.conf:disk.img`, and `blkdebug::disk.img` without rules.
 *
 * @throws BlockError `EINVAL` when there is no second colon, or nothing behind it
 */
function parseFilename(filename: string): Readonly<Record<string, unknown>> {
  const rest = filename.slice(PREFIX.length);
  const colon = rest.indexOf(":");
  const image = rest.slice(colon + 1);
  if (colon < 0 || image === "") {
    throw new BlockError("EINVAL", `'${filename}': blkdebug wants blkdebug:[config]:image`);
  }
  const config = rest.slice(0, colon);
  return { ...(config === "" ? {} : { config }), file: { filename: image } };
}

async function rulesFromFile(
  options: OptionValues,
  surroundings: BlkdebugSurroundings | undefined,
): Promise<BlkdebugRules | undefined> {
  const config = stringOption(options, "config");
  if (config === undefined) return undefined;
  if (surroundings !== undefined) return parseRulesFile(await surroundings.readConfig(config));
  throw new BlockError("ENOTSUP", "blkdebug: nobody here can read the file that 'config' names", {
    op: "open",
  });
}

/** The rules of options, each list in the order of its indices. */
function rulesOf(options: OptionValues): BlkdebugRules {
  return {
    inject: listOf(options, "inject-error", injectRule),
    states: listOf(options, "set-state", stateRule),
    suspend: listOf(options, "suspend", suspendRule),
  };
}

function listOf<Rule>(
  options: OptionValues,
  name: string,
  decode: (words: ReadonlyMap<string, unknown>, where: string) => Rule,
): Rule[] {
  const rules = new Map<number, Map<string, unknown>>();
  for (const [key, value] of Object.entries(options)) {
    if (!key.startsWith(`${name}.`) || value === undefined) continue;
    const [, index, word] = /^(\d{1,6})\.([a-z_]+)$/.exec(key.slice(name.length + 1)) ?? [];
    if (index === undefined || word === undefined) {
      throw new BlockError("EINVAL", `blkdebug: option '${key}' is not '${name}.NUMBER.WORD'`);
    }
    const rule = rules.get(Number(index)) ?? new Map<string, unknown>();
    rule.set(word, value);
    rules.set(Number(index), rule);
  }
  const inOrder = [...rules].sort(([a], [b]) => a - b);
  return inOrder.map(([index, words]) => decode(words, `blkdebug: ${name}.${index}`));
}

function joined(first: BlkdebugRules | undefined, second: BlkdebugRules): BlkdebugRules {
  if (first === undefined) return second;
  return {
    inject: [...first.inject, ...second.inject],
    states: [...first.states, ...second.states],
    suspend: [...first.suspend, ...second.suspend],
  };
}

function overridesOf(options: OptionValues): LimitOverrides {
  const overrides: { -readonly [K in keyof LimitOverrides]: number } = {};
  const take = (name: string, key: keyof LimitOverrides): void => {
    const value = options[name];
    if (typeof value === "number") overrides[key] = value;
  };
  take("align", "align");
  take("max-transfer", "maxTransfer");
  take("opt-write-zero", "optWriteZero");
  take("max-write-zero", "maxWriteZero");
  take("opt-discard", "optDiscard");
  take("max-discard", "maxDiscard");
  return overrides;
}
