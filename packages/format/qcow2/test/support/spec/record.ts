/** One line of the specification, an image that keeps or breaks it, and what must become of that image. */
import type { SpecImage } from "./spec-image.js";

/** How an image or a request is refused: always by a BlockError. */
export interface Refusal {
  readonly code: string;
  /** Of a CorruptImageError. */
  readonly structure?: string;
  /** Words of its message. */
  readonly rule: string;
  /** What refuses. Absent: opening. */
  readonly when?: "write";
}

/** What a check counts. */
export interface Counts {
  readonly corruptions: number;
  readonly leaks: number;
  readonly checkErrors: number;
}

export interface Expected {
  /** Opened read-only. Absent: it opens. */
  readonly read?: Refusal;
  /** Opened for writing; then the first and the last cluster are written. Absent: both are done. */
  readonly write?: Refusal;
  /**
   * What a reader sees, one character for each piece: `.` for zeroes, a digit for a piece full of that number, `?` for
   * anything else, `!` for what cannot be read. Absent: what the sound image shows.
   */
  readonly guest?: string;
  /** Absent: nothing is found. */
  readonly check?: Partial<Counts>;
  /** What repairing all leaves. Absent: nothing. */
  readonly left?: Partial<Counts>;
  /** What repairing leaks leaves. Absent: the corruptions that the check found, and no leaks. */
  readonly leftByLeaks?: Partial<Counts>;
  /** A refusal to check or to repair, where the header is one that opens. */
  readonly repair?: Refusal;
}

/** What QEMU's tools do other than this driver, on purpose, and why. */
export type Differs = Partial<
  Record<"read" | "info" | "write" | "guest" | "check" | "repaired", string>
>;

export interface SpecRecord {
  /** The line, in our own words. */
  readonly line: string;
  readonly build: () => SpecImage;
  readonly expected: Expected;
  readonly differs?: Differs;
  /** Why QEMU's tools are not asked. */
  readonly unjudged?: string;
  /** One of a row of alike ones, of which QEMU's tools judge some in the quick run. */
  readonly row?: boolean;
  /** Beside the image, named `base.raw`: the image names it. */
  readonly backing?: () => Uint8Array;
  /** Beside the image, named `data.raw`. */
  readonly dataFile?: () => Uint8Array;
  /** Length of a piece of `guest`. Absent: a cluster. */
  readonly pieceBytes?: number;
}

/** What the sound image shows. */
export const SOUND_GUEST = "1234............";

/** Refused, however it is opened. */
export function refused(code: string, rule: string, structure?: string): Expected {
  const refusal = { code, rule, ...(structure === undefined ? {} : { structure }) };
  return { read: refusal, write: refusal };
}

/** A broken rule of the header. */
export function badHeader(rule: string): Expected {
  return refused("ECORRUPT", rule, "header");
}

/** A request to write that is refused. */
export function writeRefused(rule: string, structure?: string, code = "ECORRUPT"): Refusal {
  return { code, rule, when: "write", ...(structure === undefined ? {} : { structure }) };
}

/** Where QEMU's tools do other than this driver: lines, and why. */
export interface Difference {
  readonly lines: RegExp;
  readonly differs?: Differs;
  readonly unjudged?: string;
}

/** The records, with what is told about those lines. Every difference is about one of them at least. */
export function withDifferences(
  records: readonly SpecRecord[],
  differences: readonly Difference[],
): readonly SpecRecord[] {
  const unused = differences.find(({ lines }) => !records.some(({ line }) => lines.test(line)));
  if (unused !== undefined) throw new Error(`no line is like ${String(unused.lines)}`);
  return records.map((record) => {
    const found = differences.find(({ lines }) => lines.test(record.line));
    if (found === undefined) return record;
    const { lines: _lines, ...told } = found;
    return { ...record, ...told };
  });
}

/** What is expected of a number in a range: the ranges are `[first, last, expected]`. */
export function within(
  value: number,
  ranges: readonly (readonly [first: number, last: number, expected: Expected])[],
): Expected {
  const found = ranges.find(([first, last]) => value >= first && value <= last);
  if (found === undefined) throw new Error(`no range holds ${value}`);
  return found[2];
}

/** The bits from `first` to `last`. */
export function bits(first: number, last: number): readonly number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/** Bit `n` of 64. */
export function bit(n: number): bigint {
  return 1n << BigInt(n);
}
