/**
 * The rules of a blkdebug node, decoded and checked.
 *
 * Above: definition.ts (from options), rules-file.ts (from a file). Below: nothing.
 *
 * Source: QEMU's QAPI types `BlkdebugInjectErrorOptions` and `BlkdebugSetStateOptions`, docs/devel/blkdebug.
 */
import { DEBUG_EVENTS, type DebugEvent } from "@blocklayer/block-api";
import { BlockError, type BlockErrorCode } from "@blocklayer/bytes";

/** Kinds of requests that a rule may choose. */
export const IO_TYPES = [
  "read",
  "write",
  "write-zeroes",
  "discard",
  "flush",
  "block-status",
] as const;
export type IoType = (typeof IO_TYPES)[number];

/** Without `iotype` a rule concerns all but this one. */
const RARE_IO_TYPE: IoType = "block-status";
const SECTOR_BYTES = 512;

/** Fails requests. */
export interface InjectRule {
  /** When it becomes active; `undefined` (the word `none`): from the start. */
  readonly event: DebugEvent | undefined;
  /** Only in this state; 0: in any. */
  readonly state: number;
  readonly ioTypes: ReadonlySet<IoType>;
  /** Absent: the rule lets requests pass (errno 0). */
  readonly code: BlockErrorCode | undefined;
  /** Only requests that touch this byte of the child. */
  readonly offset: number | undefined;
  /** It is gone after the first hit. */
  readonly once: boolean;
  /** The request fails before anything else can run. */
  readonly immediately: boolean;
}

/** Changes the state. */
export interface StateRule {
  readonly event: DebugEvent;
  readonly state: number;
  readonly newState: number;
}

/** Parks requests. */
export interface SuspendRule {
  readonly event: DebugEvent;
  readonly state: number;
  readonly tag: string;
}

/** All rules of a node, in order. */
export interface BlkdebugRules {
  readonly inject: readonly InjectRule[];
  readonly states: readonly StateRule[];
  readonly suspend: readonly SuspendRule[];
}

/** The errno numbers of Linux that rules may name. */
const ERRNO: ReadonlyMap<number, BlockErrorCode> = new Map([
  [1, "EPERM"],
  [2, "ENOENT"],
  [5, "EIO"],
  [9, "EBADF"],
  [11, "EAGAIN"],
  [12, "ENOMEM"],
  [13, "EACCES"],
  [16, "EBUSY"],
  [19, "ENODEV"],
  [22, "EINVAL"],
  [27, "EFBIG"],
  [28, "ENOSPC"],
  [30, "EROFS"],
  [32, "EPIPE"],
  [34, "ERANGE"],
  [95, "ENOTSUP"],
  [110, "ETIMEDOUT"],
  [122, "EDQUOT"],
  [125, "ECANCELED"],
]);

/** The keys of one rule as they were written. */
export type RuleWords = ReadonlyMap<string, unknown>;

const INJECT_KEYS = ["event", "state", "iotype", "errno", "sector", "once", "immediately"];
const STATE_KEYS = ["event", "state", "new_state"];
const SUSPEND_KEYS = ["event", "state", "tag"];

/** @throws BlockError `EINVAL` that names the rule and its fault */
export function injectRule(words: RuleWords, where: string): InjectRule {
  const read: WordReader = new WordReader(words, INJECT_KEYS, where);
  const ioType = read.text("iotype");
  if (ioType !== undefined && !isIoType(ioType)) {
    read.refuse("iotype", `'${ioType}' is none of ${IO_TYPES.join(", ")}`);
  }
  const errno = read.number("errno") ?? 5;
  const code = ERRNO.get(errno);
  if (code === undefined && errno !== 0) read.refuse("errno", `${errno} is not known here`);
  const sector = read.sector();
  const usual = IO_TYPES.filter((one) => one !== RARE_IO_TYPE);
  return {
    event: read.text("event") === "none" ? undefined : read.event(),
    state: read.number("state") ?? 0,
    ioTypes: new Set(ioType === undefined || !isIoType(ioType) ? usual : [ioType]),
    code,
    offset: sector === undefined ? undefined : sector * SECTOR_BYTES,
    once: read.flag("once"),
    immediately: read.flag("immediately"),
  };
}

/** @throws BlockError `EINVAL` */
export function stateRule(words: RuleWords, where: string): StateRule {
  const read: WordReader = new WordReader(words, STATE_KEYS, where);
  const newState = read.number("new_state");
  if (newState === undefined) read.refuse("new_state", "is missing");
  return { event: read.event(), state: read.number("state") ?? 0, newState };
}

/** @throws BlockError `EINVAL` */
export function suspendRule(words: RuleWords, where: string): SuspendRule {
  const read: WordReader = new WordReader(words, SUSPEND_KEYS, where);
  const tag = read.text("tag");
  if (tag === undefined) read.refuse("tag", "is missing");
  return { event: read.event(), state: read.number("state") ?? 0, tag };
}

/** @throws BlockError `EINVAL` for a word that is no event */
export function debugEvent(word: string, where: string): DebugEvent {
  const event = DEBUG_EVENTS.find((one) => one === word);
  if (event !== undefined) return event;
  throw new BlockError("EINVAL", `${where}: event '${word}' is unknown`);
}

function isIoType(word: string): word is IoType {
  return IO_TYPES.some((one) => one === word);
}

/** Reads the words of one rule, each once, and refuses those that do not belong there. */
class WordReader {
  readonly #words: RuleWords;
  readonly #where: string;

  constructor(words: RuleWords, known: readonly string[], where: string) {
    this.#words = words;
    this.#where = where;
    for (const key of words.keys()) {
      if (!known.includes(key)) this.refuse(key, `is unknown; known are ${known.join(", ")}`);
    }
  }

  refuse(key: string, rule: string): never {
    throw new BlockError("EINVAL", `${this.#where}: '${key}' ${rule}`);
  }

  text(key: string): string | undefined {
    const value = this.#words.get(key);
    if (value === undefined) return undefined;
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
      return String(value);
    }
    return this.refuse(key, "must be a plain value");
  }

  event(): DebugEvent {
    const word = this.text("event");
    if (word === undefined) this.refuse("event", "is missing");
    return debugEvent(word, this.#where);
  }

  number(key: string): number | undefined {
    const word = this.text(key);
    if (word === undefined) return undefined;
    const value = /^\d{1,15}$/.test(word) ? Number(word) : Number.NaN;
    return Number.isNaN(value) ? this.refuse(key, `'${word}' is no whole number`) : value;
  }

  /** QEMU writes -1 for "any". */
  sector(): number | undefined {
    return this.text("sector") === "-1" ? undefined : this.number("sector");
  }

  flag(key: string): boolean {
    const word = this.text(key);
    if (word === undefined || word === "off" || word === "false") return false;
    if (word === "on" || word === "true") return true;
    return this.refuse(key, `'${word}' is neither on nor off`);
  }
}
