/**
 * Counters and sizes worth watching, and what of them `info` shows.
 *
 * Above: driver.ts. Below: the caches and counters of image.ts.
 */
import type { FormatInfo } from "@blocklayer/block-api";
import type { Qcow2Image } from "./image.js";
import { wantsCompressedCache } from "./writeback/compressed-cache-switch.js";

type Statistics = Readonly<Record<string, number | boolean | string>>;

/** Counters count since the image was opened; sizes are as they are now. */
export function statisticsOf(image: Qcow2Image): Statistics {
  const { l2, refcounts, counters, inFlight, pending, lock, failure } = image;
  return {
    ...compressedCacheStatistics(image),
    l2CacheBytes: l2.memoryBytes,
    l2CacheLimitBytes: l2.maxTables * l2.tableSizeBytes,
    l2CacheHits: l2.stats.hits,
    l2CacheMisses: l2.stats.misses,
    l2CacheWrites: l2.stats.writes,
    l2CacheEvictions: l2.stats.evictions,
    refcountCacheHits: refcounts.stats.hits,
    refcountCacheMisses: refcounts.stats.misses,
    refcountCacheWrites: refcounts.stats.writes,
    compressedReads: counters.compressedReads,
    compressedWrites: counters.compressedWrites,
    allocatedClusters: counters.allocatedClusters,
    cowBytes: counters.cowBytes,
    coolingClusters: inFlight.coolingCount,
    requestsInFlight: inFlight.activeCount,
    pendingAllocations: pending.size,
    imageLocked: lock.locked,
    failed: failure !== undefined,
  };
}

/** What `info` says when compressed writes are gathered [S13]: a row that qemu-img does not have. */
export function withCompressedCacheRow(info: FormatInfo): FormatInfo {
  return { ...info, data: { ...info.data, "compressed-write-cache": true } };
}

function compressedCacheStatistics(image: Qcow2Image): Statistics {
  const { compressedCache: cache } = image;
  const { clusters = 0, bytes = 0, buffers = 0, hits = 0 } = cache?.contents ?? {};
  return {
    compressedCache: wantsCompressedCache(image),
    compressedCacheClusters: clusters,
    compressedCacheBytes: bytes,
    compressedCacheBuffers: buffers,
    compressedCacheHits: hits,
    compressedCacheWrites: cache?.stats.writes ?? 0,
    compressedCacheFlushedClusters: cache?.stats.flushedClusters ?? 0,
    compressedCachePaddedBytes: cache?.stats.paddedBytes ?? 0,
    compressedCacheAvoidedReadModifyWrites: cache?.stats.avoidedReadModifyWrites ?? 0,
  };
}
