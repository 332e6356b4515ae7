/**
 * Creating an image in memory first, to hear the format's objections before a file is emptied.
 *
 * 1. Only what the format writes is kept, and that without preallocation: tables, not the disk.
 * 2. More than MAX_BYTES of tables are not rehearsed: the rest of the writes is dropped.
 */
import { IoVector, KiB, MiB } from "@blocklayer/bytes";
import {
  type BlockChild,
  type OptionValues,
  storeCapabilities,
  UNLIMITED,
} from "@blocklayer/block-api";
import type { FullCreatePlan } from "./create-plan.js";

const CHUNK_BYTES: number = 64 * KiB;
const MAX_BYTES: number = 64 * MiB;

/** @throws what the format's `create` throws for these options */
export async function rehearse({ format, formatOptions }: FullCreatePlan): Promise<void> {
  const options = { ...formatOptions };
  if (options["preallocation"] !== undefined) options["preallocation"] = "off";
  const rehearseWith = async (changes: OptionValues): Promise<void> => {
    const stores = { file: new ScratchStore(), dataFile: new ScratchStore() };
    await format.create?.({ ...stores, options: { ...options, ...changes } });
  };
  if (options["data_file_raw"] !== true) return await rehearseWith({});
  // Such an image names every cluster from the start: too many tables to keep, so its size is rehearsed apart.
  await rehearseWith({ size: 0 });
  await rehearseWith({ data_file_raw: false });
}

/** A byte store that forgets when it is dropped. */
class ScratchStore implements BlockChild {
  readonly nodeName = "rehearsal";
  readonly limits = UNLIMITED;
  readonly capabilities = storeCapabilities(true);
  lengthBytes = 0;
  readonly #chunks = new Map<number, Uint8Array>();

  readv(offset: number, target: IoVector): void {
    target.fill(0);
    this.#eachChunk(offset, target.lengthBytes, (index, from, to, at) => {
      const chunk = this.#chunks.get(index);
      if (chunk !== undefined) target.copyFrom(chunk.subarray(from, to), at);
    });
  }

  writev(offset: number, source: IoVector): void {
    this.lengthBytes = Math.max(this.lengthBytes, offset + source.lengthBytes);
    this.#eachChunk(offset, source.lengthBytes, (index, from, to, at) => {
      const chunk = this.#chunks.get(index) ?? this.#newChunk(index);
      if (chunk !== undefined) source.copyTo(chunk.subarray(from, to), at);
    });
  }

  writeZeroes(offset: number, lengthBytes: number): void {
    this.lengthBytes = Math.max(this.lengthBytes, offset + lengthBytes);
    for (const [index, chunk] of this.#chunks) {
      const from = Math.max(offset - index * CHUNK_BYTES, 0);
      const to = Math.min(offset + lengthBytes - index * CHUNK_BYTES, CHUNK_BYTES);
      if (from < to) chunk.fill(0, from, to);
    }
  }

  discard(): void {}

  blockStatus(offset: number, lengthBytes: number): ReturnType<BlockChild["blockStatus"]> {
    return {
      lengthBytes,
      allocated: true,
      data: true,
      zero: false,
      compressed: false,
      hostOffset: offset,
    };
  }

  truncate(lengthBytes: number): void {
    if (lengthBytes < this.lengthBytes) {
      this.writeZeroes(lengthBytes, this.lengthBytes - lengthBytes);
    }
    this.lengthBytes = lengthBytes;
  }

  flush(): void {}

  #newChunk(index: number): Uint8Array | undefined {
    if (this.#chunks.size * CHUNK_BYTES >= MAX_BYTES) return undefined;
    const chunk = new Uint8Array(CHUNK_BYTES);
    this.#chunks.set(index, chunk);
    return chunk;
  }

  #eachChunk(
    offset: number,
    lengthBytes: number,
    visit: (index: number, from: number, to: number, at: number) => void,
  ): void {
    for (let at = 0; at < lengthBytes; ) {
      const from = (offset + at) % CHUNK_BYTES;
      const to = Math.min(CHUNK_BYTES, from + lengthBytes - at);
      visit((offset + at - from) / CHUNK_BYTES, from, to, at);
      at += to - from;
    }
  }
}
