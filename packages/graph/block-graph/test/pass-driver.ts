/** A filter that passes everything to its child. */
import type { MaybePromise } from "@blocklayer/bytes";
import type { BlockChild, BlockDriver, ReopenRequest } from "@blocklayer/block-api";

/** Everything goes through its child handle. */
export class PassDriver implements BlockDriver {
  readonly driverName = "pass";
  readonly #child: BlockChild;

  constructor(child: BlockChild) {
    this.#child = child;
  }

  get lengthBytes(): number {
    return this.#child.lengthBytes;
  }

  get limits(): BlockDriver["limits"] {
    return this.#child.limits;
  }

  get capabilities(): BlockDriver["capabilities"] {
    return this.#child.capabilities;
  }

  readv: BlockDriver["readv"] = (...request) => this.#child.readv(...request);
  writev: BlockDriver["writev"] = (...request) => this.#child.writev(...request);
  writeZeroes: BlockDriver["writeZeroes"] = (...request) => this.#child.writeZeroes(...request);
  discard: BlockDriver["discard"] = (...request) => this.#child.discard(...request);
  blockStatus: BlockDriver["blockStatus"] = (...request) => this.#child.blockStatus(...request);
  truncate: BlockDriver["truncate"] = (...request) => this.#child.truncate(...request);
  flushToOs(): MaybePromise<void> {}
  flushToDisk(): void {}
  reopen(_request: ReopenRequest): MaybePromise<void> {}
  close(): MaybePromise<void> {}
}
