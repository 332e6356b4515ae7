/** A store that records what reaches it, keeps apart what is durable, and fails when told to. */
import { BlockError, type IoVector, viewOf } from "@blocklayer/bytes";
import type { TableStore } from "../src/index.js";

export const SIZE = 512;

export type StoreEvent =
  | { readonly kind: "write"; readonly at: number }
  | { readonly kind: "sync" };

export class FakeStore implements TableStore {
  /** What a read returns. */
  readonly written: Map<number, Uint8Array> = new Map();
  /** What a power cut leaves. */
  readonly durable: Map<number, Uint8Array> = new Map();
  /** Written and neither synced nor thrown away by a failed sync. */
  readonly pending: Map<number, Uint8Array> = new Map();
  readonly events: StoreEvent[] = [];
  /** Called before each event; what it throws is the event's failure. */
  onEvent: (event: StoreEvent) => void = () => {};
  /** A failed sync throws away what it should have made durable, as Linux does. */
  losesOnFailedSync = false;
  readCount = 0;
  readonly #sync: boolean;

  constructor(options: { sync?: boolean } = {}) {
    this.#sync = options.sync ?? false;
  }

  read(hostOffset: number, into: Uint8Array): void | Promise<void> {
    this.readCount++;
    return this.#reply(() => {
      into.fill(0);
      into.set(this.written.get(hostOffset) ?? []);
    });
  }

  write(hostOffset: number, bytes: Uint8Array): void | Promise<void> {
    return this.#reply(() => this.accept(hostOffset, bytes));
  }

  sync(): void | Promise<void> {
    return this.#reply(() => {
      try {
        this.onEvent({ kind: "sync" });
      } catch (error) {
        if (this.losesOnFailedSync) this.pending.clear();
        throw error;
      }
      this.events.push({ kind: "sync" });
      for (const [at, bytes] of this.pending) this.durable.set(at, bytes);
      this.pending.clear();
    });
  }

  /** The events in short: `w0 w512 sync`. */
  log(): string {
    return this.events.map((e) => (e.kind === "sync" ? "sync" : `w${e.at}`)).join(" ");
  }

  protected accept(hostOffset: number, bytes: Uint8Array): void {
    this.onEvent({ kind: "write", at: hostOffset });
    this.events.push({ kind: "write", at: hostOffset });
    this.written.set(hostOffset, bytes.slice());
    this.pending.set(hostOffset, bytes.slice());
  }

  #reply(act: () => void): void | Promise<void> {
    if (this.#sync) return act();
    return Promise.resolve().then(act);
  }
}

/** The same with vectored writes; `runs` holds offset and number of tables of each. */
export class VectorStore extends FakeStore {
  readonly runs: [number, number][] = [];

  async writev(hostOffset: number, tables: IoVector): Promise<void> {
    await Promise.resolve();
    this.runs.push([hostOffset, tables.parts.length]);
    let at = hostOffset;
    for (const part of tables.parts) {
      this.accept(at, part);
      at += part.length;
    }
  }
}

export function eio(): BlockError {
  return new BlockError("EIO", "injected");
}

/** The number that a test keeps at the start of a table. */
export function versionOf(bytes: Uint8Array | undefined): number {
  return bytes === undefined ? 0 : viewOf(bytes).getUint32(0);
}
