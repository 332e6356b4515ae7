// The codec of a simulation: deflate within this thread, done when the scheduler says so.
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { BlockError } from "@blocklayer/bytes";

/** A stream in a window of 4 KiB, as QEMU reads it. Speed counts more than size here. */
const DEFLATE = { level: 1, windowBits: 12 };

/**
 * A factory for the driver.
 *
 * @param {import("@blocklayer/sim").SimScheduler} [scheduler] - completes the work; absent: at once
 * @param {(payload: Uint8Array) => void} [onPayload] - told of all that was compressed
 * @returns {import("@blocklayer/qcow2").CodecFactory}
 */
export function simCodec(scheduler, onPayload) {
  const later = (label, work) =>
    scheduler === undefined ? work() : scheduler.schedule(label, work);
  return (name) => ({
    name,
    compress: (clusters, maxBytes) =>
      later("compress", () =>
        clusters.map((cluster) => {
          const payload = deflate(cluster, maxBytes);
          if (payload !== undefined) onPayload?.(payload);
          return payload;
        }),
      ),
    decompress: (payload, target) => later("decompress", () => inflate(payload, target)),
    decompressMany: (items) =>
      later("decompress", () => {
        for (const { payload, target } of items) inflate(payload, target);
      }),
    close: () => undefined,
  });
}

function deflate(cluster, maxBytes) {
  const payload = deflateRawSync(cluster, DEFLATE);
  return payload.length > maxBytes ? undefined : new Uint8Array(payload);
}

function inflate(payload, target) {
  let bytes;
  try {
    bytes = inflateRawSync(payload, {
      chunkSize: Math.max(64, target.length),
      maxOutputLength: 2 ** 22,
    });
  } catch (cause) {
    throw new BlockError("EIO", "compressed data is damaged", { op: "decompress", cause });
  }
  if (bytes.length < target.length) {
    throw new BlockError("EIO", "compressed data does not fill its cluster", { op: "decompress" });
  }
  target.set(bytes.subarray(0, target.length));
}
