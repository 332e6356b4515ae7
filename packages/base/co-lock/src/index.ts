/** Locks for coroutines, first come, first served. Start reading in lease.ts. */
export type { AcquireOptions, Lease } from "./lease.js";
export { CoMutex } from "./mutex.js";
export { type RangeLease, RangeLock } from "./range-lock.js";
export { CoRwLock, type RwLease, type RwMode } from "./rw-lock.js";
export { CoSemaphore } from "./semaphore.js";
export { WaitQueue } from "./wait-queue.js";
export { Waiter, WaiterList } from "./waiter-list.js";
