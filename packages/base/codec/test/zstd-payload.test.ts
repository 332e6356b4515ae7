import { BlockError, hasCode } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { nativeZstdDecoder } from "../src/node-zstd.js";
import { readZstdFrame } from "../src/zstd-frame.js";
import { decodePayload, type FrameDecoder, wholeFrame } from "../src/zstd-payload.js";
import { sharedZstd } from "../src/zstd-wasm.js";
import { CLUSTER, differenceOf } from "./samples.js";
import { bytesOf, clusterCases, frame, rawBlock, rleBlock, skippable } from "./zstd-frames.js";

const zstd = await sharedZstd();
const decoders: [string, FrameDecoder][] = [["wasm", (from, to) => zstd.decompress(from, to)]];
const native = nativeZstdDecoder();
if (native !== undefined) decoders.push(["native", native]);

describe.each(decoders)("decodePayload() with the %s decoder", (_name, decode) => {
  test.each(clusterCases())("must do as QEMU with $name", ({ payload, cluster }) => {
    const target = new Uint8Array(CLUSTER);
    const work = (): void => decodePayload({ payload, target }, decode);
    if (cluster === undefined) {
      expect(work).toThrow(BlockError);
      expect(work).toThrow(/^compressed data of \d+ bytes: (the zstd frame |does not fill)/);
      return;
    }
    work();
    expect(differenceOf(target, cluster)).toBeUndefined();
  });

  test("must check the checksum", () => {
    // What the zstd program writes for this, with its --check.
    const payload = Uint8Array.from(Buffer.from("28b52ffd0458190000616263990977ad", "hex"));
    const target = new Uint8Array(3);
    const wrong = payload.slice();
    wrong[15] = (wrong[15] as number) ^ 1;
    expect(() => decodePayload({ payload: wrong, target }, decode)).toThrow("damaged");
    decodePayload({ payload, target }, decode);
    expect(Buffer.from(target).toString()).toBe("abc");
  });
});

describe("decodePayload()", () => {
  test("must give a decoder no window beyond 8 MiB, and leave the payload alone", () => {
    for (const windowLog of [10, 23, 24, 27]) {
      const payload = frame([rawBlock(new Uint8Array(600))], { windowLog, windowEighths: 0 });
      const before = payload.slice();
      let windowBytes: number | undefined;
      decodePayload({ payload, target: new Uint8Array(600) }, (bytes) => {
        const found = readZstdFrame(bytes, 0);
        if (found.kind === "frame") windowBytes = found.windowBytes;
        return 600;
      });
      expect(windowBytes).toBe(windowLog > 23 ? 2 ** 17 : 2 ** windowLog);
      expect(payload).toEqual(before);
    }
  });

  test("must give up after 64 frames", () => {
    const one = frame([rleBlock(1, 1)], { content: 1, contentField: 1 });
    const all = bytesOf(...Array<Uint8Array>(70).fill(one));
    const decode: FrameDecoder = (_, target) => {
      target[0] = 1;
      return 1;
    };
    decodePayload({ payload: all, target: new Uint8Array(64) }, decode);
    const tooMany = { payload: all, target: new Uint8Array(65) };
    expect(() => decodePayload(tooMany, decode)).toThrow("has more than 64 frames");
    const skipping = bytesOf(...Array<Uint8Array>(64).fill(skippable(new Uint8Array(0))), one);
    const late = { payload: skipping, target: new Uint8Array(1) };
    expect(() => decodePayload(late, decode)).toThrow("has more than 64 frames");
  });

  test("must say what is wrong", () => {
    const messageOf = (payload: Uint8Array): string => {
      try {
        decodePayload({ payload, target: new Uint8Array(100) }, (_, target) => target.length);
      } catch (error) {
        expect(hasCode(error, "EIO")).toBe(true);
        return String(error);
      }
      return "nothing";
    };
    expect(messageOf(new Uint8Array(50))).toContain("does not begin with a frame's magic number");
    const long = frame([rleBlock(1, 200)], { content: 200, contentField: 1 });
    expect(messageOf(long)).toContain("says that it holds 200 bytes, for 100");
    const wide = frame([rleBlock(1, 100)], { windowLog: 30 });
    expect(messageOf(wide)).toContain("asks for a window of 1073741824 bytes");
  });
});

describe("wholeFrame()", () => {
  const target = new Uint8Array(100);
  const stated = frame([rleBlock(1, 100)], { content: 100, contentField: 1 });

  test("must cut the frame of an ordinary cluster", () => {
    expect(wholeFrame({ payload: bytesOf(stated, [1, 2, 3]), target })).toEqual(stated);
    const open = frame([rleBlock(1, 100)], { windowLog: 10 });
    expect(wholeFrame({ payload: bytesOf(open, new Uint8Array(99)), target })).toEqual(open);
  });

  test("must leave to decodePayload() what is not ordinary", () => {
    const others = [
      bytesOf(skippable(target), stated),
      frame([rleBlock(1, 99)], { content: 99, contentField: 1 }),
      frame([rleBlock(1, 100)], { windowLog: 24 }),
      stated.subarray(0, stated.length - 1),
    ];
    for (const payload of others) expect(wholeFrame({ payload, target })).toBeUndefined();
  });
});
