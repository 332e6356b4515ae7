/** A write-back cache for tables, with order between them. Start reading in table.ts. */
export { L2Cache, type L2CacheOptions } from "./l2-cache.js";
export { type CacheStats, MetadataCache, type MetadataCacheOptions } from "./metadata-cache.js";
export {
  isRefcountBits,
  maxRefcount,
  type RefcountBits,
  readRefcount,
  writeRefcount,
} from "./refcount-bits.js";
export { RefcountCache, type RefcountCacheOptions } from "./refcount-cache.js";
export type { Flushable, TableStore } from "./store.js";
export type { Table } from "./table.js";
export type { BeforeWrite } from "./write-slots.js";
