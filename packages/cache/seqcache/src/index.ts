/** Small sequential writes become whole, aligned clusters. Start reading in seqcache.ts. */
export { type FlushToken, type SeqFlush, writeLength } from "./flush.js";
export type { SeqCacheAllocator, SeqCacheOptions, SeqCacheStats } from "./options.js";
export type { ReadGap, ReadResult } from "./overlay.js";
export { SeqCache } from "./seqcache.js";
