/**
 * Bounce buffers for one AlignedIo, without ever waiting for the arena.
 *
 * The arena may be full because of buffers whose owners wait for this very request: its sender, or a node
 * further up. Waiting for it could last for ever. So:
 *
 * 1. What the arena can lend at once is taken from there.
 * 2. Otherwise there is one reserve buffer, outside the arena's bound, that the requests of this AlignedIo
 *    take in turns. Its holder waits only for the device below, so the turn always comes.
 * 3. Who gets the turn asks the arena once more: requests leave the reserve as soon as there is room again.
 */
import type { MaybePromise } from "@blocklayer/bytes";
import { CoMutex, type Lease } from "@blocklayer/co-lock";
import { type AlignedArena, type AlignedBuffer, RESERVE_BYTES } from "./arena.js";

class ReserveBuffer implements AlignedBuffer {
  readonly bytes: Uint8Array;
  readonly #arena: AlignedArena;
  readonly #reserve: Uint8Array;
  readonly #turn: Lease;

  constructor(arena: AlignedArena, reserve: Uint8Array, turn: Lease, lengthBytes: number) {
    this.#arena = arena;
    this.#reserve = reserve;
    this.#turn = turn;
    this.bytes = reserve.subarray(0, Math.min(lengthBytes, RESERVE_BYTES));
  }

  release(): void {
    // The turn asserts that there is one release only, so it comes first.
    this.#turn.release();
    this.#arena.giveReserveBack(this.#reserve);
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

export class BounceSource {
  readonly #arena: AlignedArena;
  readonly #turns = new CoMutex("bounce buffer");

  constructor(arena: AlignedArena) {
    this.#arena = arena;
  }

  /**
   * A bounce buffer.
   *
   * Requires: the caller holds no other bounce buffer, and waits for nothing but the device while it has it.
   * @param lengthBytes - at most the arena's longest buffer
   * @returns a buffer of that length, or a shorter one of RESERVE_BYTES: then the work is done in parts
   */
  take(lengthBytes: number, signal: AbortSignal | undefined): MaybePromise<AlignedBuffer> {
    return this.#arena.tryAllocate(lengthBytes) ?? this.#takeTurn(lengthBytes, signal);
  }

  async #takeTurn(lengthBytes: number, signal: AbortSignal | undefined): Promise<AlignedBuffer> {
    const turn = await this.#turns.acquire(signal === undefined ? undefined : { signal });
    try {
      const buffer = this.#arena.tryAllocate(lengthBytes);
      if (buffer === undefined) {
        return new ReserveBuffer(this.#arena, this.#arena.takeReserve(), turn, lengthBytes);
      }
      turn.release();
      return buffer;
    } catch (error) {
      turn.release();
      throw error;
    }
  }
}
