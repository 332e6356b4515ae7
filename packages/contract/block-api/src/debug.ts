/**
 * Named moments in a driver's work, for tests that want something to happen just then.
 *
 * Above: drivers and the graph, which announce moments to the file below them. Below: the blkdebug filter, which
 * counts them, injects errors at them, and parks requests there. Everybody else does not hear of them.
 *
 * Source: the names are those of QEMU's blkdebug (`BlkdebugEvent` of its QAPI schema), so that its rules files work.
 */

/** Every moment that has a name, in QEMU's order. Not every driver has every moment. */
export const DEBUG_EVENTS = [
  "l1_update",
  "l1_grow_alloc_table",
  "l1_grow_write_table",
  "l1_grow_activate_table",
  "l2_load",
  "l2_update",
  "l2_update_compressed",
  "l2_alloc_cow_read",
  "l2_alloc_write",
  "read_aio",
  "read_backing_aio",
  "read_compressed",
  "write_aio",
  "write_compressed",
  "vmstate_load",
  "vmstate_save",
  "cow_read",
  "cow_write",
  "reftable_load",
  "reftable_grow",
  "reftable_update",
  "refblock_load",
  "refblock_update",
  "refblock_update_part",
  "refblock_alloc",
  "refblock_alloc_hookup",
  "refblock_alloc_write",
  "refblock_alloc_write_blocks",
  "refblock_alloc_write_table",
  "refblock_alloc_switch_table",
  "cluster_alloc",
  "cluster_alloc_bytes",
  "cluster_free",
  "flush_to_os",
  "flush_to_disk",
  "pwritev_rmw_head",
  "pwritev_rmw_after_head",
  "pwritev_rmw_tail",
  "pwritev_rmw_after_tail",
  "pwritev",
  "pwritev_zero",
  "pwritev_done",
  "empty_image_prepare",
  "l1_shrink_write_table",
  "l1_shrink_free_l2_clusters",
  "cor_write",
  "cluster_alloc_space",
] as const;

/** One of `DEBUG_EVENTS`. */
export type DebugEvent = (typeof DEBUG_EVENTS)[number];

/** Hears what becomes of parked requests, at once and in order. It must not throw. */
export interface DebugObserver {
  suspended(tag: string): void;
  resumed(tag: string): void;
}

/** What a driver offers that can park requests: `break`, `resume` and `wait_break` of qemu-io. */
export interface DebugControl {
  /** The next request that meets the event stops there, once, until `resume(tag)`. */
  breakpoint(event: DebugEvent, tag: string): void;
  /**
   * Takes a breakpoint away, and lets go what is parked at it.
   *
   * @throws BlockError `ENOENT` when there is neither
   */
  removeBreakpoint(tag: string): void;
  /**
   * Lets the latest request go on that is parked under the tag.
   *
   * @throws BlockError `ENOENT` when there is none
   */
  resume(tag: string): void;
  /** Whether a request is parked under the tag. */
  isSuspended(tag: string): boolean;
  /** Ends when a request is parked under the tag: at once if one is. */
  whenSuspended(tag: string): Promise<void>;
  /**
   * Lets every parked request go, and parks none any more: before a close, which waits for all requests.
   * Breakpoints and rules that park are gone afterwards.
   */
  resumeAll(): void;
  /** Names who hears of parked requests from now on; there is one at a time. */
  observe(observer: DebugObserver | undefined): void;
}
