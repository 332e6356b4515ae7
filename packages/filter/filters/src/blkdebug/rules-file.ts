/**
 * The file of rules that `config` names: sections with quoted values, as QEMU's configuration files have them.
 *
 *   [inject-error]
 *   event = "write_aio"
 *   errno = "28"
 *
 * Above: definition.ts. Below: rules.ts. Text in, rules out.
 */
import { BlockError } from "@blocklayer/bytes";
import {
  type BlkdebugRules,
  injectRule,
  type InjectRule,
  stateRule,
  type StateRule,
  suspendRule,
  type SuspendRule,
} from "./rules.js";

const SECTION = /^\[([a-z-]+)(?: "[^"]*")?\]$/;
const SETTING = /^([a-z_-]+) *= *"([^"]*)"$/;
/** More text than anybody writes by hand. */
const MAX_LENGTH = 2 ** 20;

interface Section {
  readonly name: string;
  readonly line: number;
  readonly words: Map<string, string>;
}

/**
 * Reads a file of rules.
 *
 * @throws BlockError `EINVAL` that names the line
 */
export function parseRulesFile(text: string): BlkdebugRules {
  if (text.length > MAX_LENGTH)
    throw new BlockError("EINVAL", "blkdebug: the rules file is too long");
  const inject: InjectRule[] = [];
  const states: StateRule[] = [];
  const suspend: SuspendRule[] = [];
  for (const { name, line, words } of sectionsOf(text)) {
    const where = `blkdebug: line ${line}: ${name}`;
    if (name === "inject-error") inject.push(injectRule(words, where));
    else if (name === "set-state") states.push(stateRule(words, where));
    else if (name === "suspend") suspend.push(suspendRule(words, where));
    else throw new BlockError("EINVAL", `blkdebug: line ${line}: section '${name}' is unknown`);
  }
  return { inject, states, suspend };
}

function sectionsOf(text: string): Section[] {
  const sections: Section[] = [];
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    const section = SECTION.exec(line)?.[1];
    if (section !== undefined) {
      sections.push({ name: section, line: index + 1, words: new Map() });
      continue;
    }
    const [, key, value] = SETTING.exec(line) ?? [];
    const current = sections.at(-1);
    if (key === undefined || value === undefined || current === undefined) {
      throw new BlockError(
        "EINVAL",
        `blkdebug: line ${index + 1}: neither [section] nor key = "value"`,
      );
    }
    current.words.set(key, value);
  }
  return sections;
}
