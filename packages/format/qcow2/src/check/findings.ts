/**
 * What a check has found so far.
 *
 * Above: every part of the check. Below: nothing.
 *
 * 1. Counts are exact, as long as they are safe integers; the list of messages is bounded.
 * 2. A message is built only when it still fits into the list: an image with millions of leaks
 *    costs millions of increments, not of strings.
 */
import type { CheckFinding } from "@blocklayer/block-api";

/** Messages that are kept; further ones are counted. */
export const MAX_FINDINGS = 1000;

type Severity = CheckFinding["severity"];

/** Builds one line, when it is wanted. */
export type Message = () => string;

export class Findings {
  corruptions = 0;
  leaks = 0;
  checkErrors = 0;
  /** Messages that did not fit into the list. */
  omitted = 0;
  readonly #list: CheckFinding[] = [];
  readonly #onDropped: ((message: string) => void) | undefined;

  /** @param onDropped - hears of all that is dropped */
  constructor(onDropped?: (message: string) => void) {
    this.#onDropped = onDropped;
  }

  /** The lines, in the order found. */
  get list(): readonly CheckFinding[] {
    return this.#list;
  }

  /**
   * The image breaks a rule.
   *
   * @param times - how often, when one look stands for several references
   */
  corruption(message: Message, times = 1): void {
    this.corruptions += times;
    this.#add("corruption", message, times);
  }

  /** A cluster has a higher refcount than it has references: space lost, data safe. */
  leak(message: Message): void {
    this.leaks++;
    this.#add("leak", message, 1);
  }

  /** Something could not be checked. */
  error(message: Message, times = 1): void {
    this.checkErrors += times;
    this.#add("error", message, times);
  }

  /** Something was wrong and is mended, without loss. */
  repaired(message: Message): void {
    this.#add("repaired", message, 1);
  }

  /** Something cannot be kept, and leaves the image. */
  dropped(message: Message): void {
    this.#onDropped?.(message());
    this.#add("dropped", message, 1);
  }

  /** Appends what another list has found. */
  append(other: Findings): void {
    this.corruptions += other.corruptions;
    this.leaks += other.leaks;
    this.checkErrors += other.checkErrors;
    const room = MAX_FINDINGS - this.#list.length;
    this.#list.push(...other.list.slice(0, room));
    this.omitted += other.omitted + Math.max(0, other.list.length - room);
  }

  #add(severity: Severity, message: Message, times: number): void {
    if (this.#list.length >= MAX_FINDINGS) {
      this.omitted++;
      return;
    }
    const suffix = times === 1 ? "" : ` (${times} times)`;
    this.#list.push({ severity, message: message() + suffix });
  }
}
