/**
 * What the commands of `blk io` share: the streams, and the image that is open.
 *
 * Above: runner.ts, the commands. Below: image.ts.
 */
import type { RequestOptions } from "@blocklayer/block-api";
import type { Terminal } from "../terminal.js";
import { ReportedError } from "./errors.js";
import { IoImage, type IoOpenOptions } from "./image.js";

/** What the program's options say for every image. */
export type IoDefaults = Pick<
  IoOpenOptions,
  "readOnly" | "snapshot" | "cache" | "ignoresDiscard" | "forceShare"
>;

export class IoSession {
  readonly terminal: Terminal;
  #image: IoImage | undefined = undefined;
  #bug: { readonly error: unknown } | undefined = undefined;

  constructor(terminal: Terminal) {
    this.terminal = terminal;
  }

  get isOpen(): boolean {
    return this.#image !== undefined;
  }

  /** @throws ReportedError when none is open */
  get image(): IoImage {
    if (this.#image === undefined) throw new ReportedError("no file open, try 'help open'");
    return this.#image;
  }

  /** What goes with every request. */
  get requestOptions(): RequestOptions {
    return { signal: this.terminal.signal };
  }

  /** A request beside the commands ended as none should: the next command throws it. */
  failed(error: unknown): void {
    this.#bug ??= { error };
  }

  /** @throws what `failed` was given */
  throwFailed(): void {
    if (this.#bug !== undefined) throw this.#bug.error;
  }

  print(text: string): void {
    this.terminal.out(text);
  }

  /** Opens the image of the session. Requires: none is open. */
  async open(options: Omit<IoOpenOptions, "signal" | "onProbedRaw">): Promise<void> {
    const { programName, signal } = this.terminal;
    const image = await IoImage.open({
      ...options,
      signal,
      onProbedRaw: (filename) =>
        this.terminal.err(
          `${programName}: warning: '${filename}' is taken as raw, since nothing else was found in it; say so with -f raw\n`,
        ),
    });
    image.observe({
      suspended: (tag) => this.print(`blkdebug: Suspended request '${tag}'\n`),
      resumed: (tag) => this.print(`blkdebug: Resuming request '${tag}'\n`),
    });
    this.#image = image;
  }

  /** Closes the image, if one is open. */
  async close(): Promise<void> {
    const image = this.#image;
    this.#image = undefined;
    await image?.close();
  }
}
