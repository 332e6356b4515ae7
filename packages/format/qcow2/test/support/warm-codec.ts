/** Keeps the codec's threads while a file's tests run: images that open and close by the hundred share them. */
import { createCodec } from "@blocklayer/codec";
import { afterAll, beforeAll } from "vitest";

/** Call at the top of a test file. */
export function keepCodecWarm(): void {
  const codec = createCodec("deflate");
  beforeAll(async () => {
    await codec.compress([new Uint8Array(512)], 511);
  });
  afterAll(async () => {
    await codec.close();
  });
}
