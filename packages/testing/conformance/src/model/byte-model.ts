/** The flat byte array that a disk is compared with. */
import { pattern } from "../pattern.js";
import type { Operation } from "./operations.js";

/** What a disk must hold. */
export class ByteModel {
  #bytes: Uint8Array;
  /** 1 where a discard left it open whether the byte is as before or zero. */
  #open: Uint8Array;

  constructor(content: Uint8Array) {
    this.#bytes = new Uint8Array(content);
    this.#open = new Uint8Array(content.length);
  }

  get lengthBytes(): number {
    return this.#bytes.length;
  }

  /** Does what the disk does. Requires: the operation fits. */
  apply(operation: Operation): void {
    switch (operation.kind) {
      case "write":
        this.#set(operation.offset, pattern(operation.seed, operation.lengthBytes));
        return;
      case "zero":
        this.#set(operation.offset, new Uint8Array(operation.lengthBytes));
        return;
      case "discard":
        this.#open.fill(1, operation.offset, operation.offset + operation.lengthBytes);
        return;
      case "truncate":
        this.#resize(operation.lengthBytes);
        return;
      case "together":
        for (const step of operation.steps) this.apply(step);
        return;
      default:
    }
  }

  /** What must be read at `offset`, given what was read: where both are allowed, zero if that was read. */
  expected(offset: number, actual: Uint8Array): Uint8Array {
    const expected = this.#bytes.slice(offset, offset + actual.length);
    for (let i = 0; i < expected.length; i++) {
      if (this.#open[offset + i] === 1 && actual[i] === 0) expected[i] = 0;
    }
    return expected;
  }

  /** Whether data may be claimed to be zero there. */
  mayBeZero(offset: number, lengthBytes: number): boolean {
    for (let i = offset; i < offset + lengthBytes; i++) {
      if (this.#bytes[i] !== 0 && this.#open[i] !== 1) return false;
    }
    return true;
  }

  #set(offset: number, bytes: Uint8Array): void {
    this.#bytes.set(bytes, offset);
    this.#open.fill(0, offset, offset + bytes.length);
  }

  #resize(lengthBytes: number): void {
    const bytes = new Uint8Array(lengthBytes);
    const open = new Uint8Array(lengthBytes);
    bytes.set(this.#bytes.subarray(0, lengthBytes));
    open.set(this.#open.subarray(0, lengthBytes));
    this.#bytes = bytes;
    this.#open = open;
  }
}
