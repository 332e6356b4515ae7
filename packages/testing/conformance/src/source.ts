/** What a driver's author hands to the suite. */
import type { MaybePromise } from "@blocklayer/bytes";
import type { BlockCapabilities, BlockDriver } from "@blocklayer/block-api";

/** An open disk, with what the suite cannot know of it. */
export interface DriverTarget {
  readonly driver: BlockDriver;
  /** Opens the same disk again after `driver.close()`. Without it persistence is not checked. */
  readonly reopen?: () => MaybePromise<BlockDriver>;
  /** What the disk holds at the start; by default zeroes. A read-only disk that is not empty needs it. */
  readonly content?: Uint8Array;
  /** Called when the check is done, after `close`: deletes files. */
  readonly dispose?: () => MaybePromise<void>;
}

/** How to get disks of one driver. */
export interface DriverSource {
  /** As in `describe`. */
  readonly name: string;
  /**
   * A fresh disk of this length that shares nothing with earlier ones. One of another length (a device) is
   * fine too.
   */
  open(lengthBytes: number): MaybePromise<BlockDriver | DriverTarget>;
  /**
   * What the driver must be able to do; checked, so that a driver does not slip through by declaring nothing.
   * By default `{ write: true }`.
   */
  readonly capabilities?: Partial<BlockCapabilities>;
  /** Length of the disks, by default 1 MiB and three sectors. A multiple of 512. */
  readonly lengthBytes?: number;
  /** Memory that is aligned as the driver's `memoryAlignment` asks; by default the suite's own, page-aligned. */
  readonly allocate?: (lengthBytes: number) => Uint8Array;
  /** A byte store: written past its end it grows. */
  readonly growsPastEnd?: boolean;
  /** Nothing to wait for: reads and writes return without a promise. */
  readonly synchronous?: boolean;
  /** Of the random operations; a failure prints it. By default 1. */
  readonly seed?: number;
  /** How many random lists are tried; by default 25. */
  readonly modelRuns?: number;
}

/** A target, whether the source gave one or a bare driver. */
export function targetOf(opened: BlockDriver | DriverTarget): DriverTarget {
  return "driverName" in opened ? { driver: opened } : opened;
}

/** What became of a check that did not fail. */
export type CheckOutcome = "passed" | { readonly skipped: string };

/** One promise of the contract, as a test. `run` throws when the driver breaks it. */
export interface ConformanceCheck {
  readonly name: string;
  run(source: DriverSource): Promise<CheckOutcome>;
}

/** 1 MiB and three sectors: the end is not the end of a page or a cluster. */
export const DEFAULT_LENGTH_BYTES: number = 1024 * 1024 + 3 * 512;

/**
 * The same disks behind a wrapper: a filter, a format of one layer.
 *
 * @param wrap - opens the wrapper over a driver. The wrapper's `close` must close that driver, or need not:
 *   both are closed
 * @example driverSuite(through("raw", memory, (driver) => openRaw(directChild(driver))))
 */
export function through(
  name: string,
  source: DriverSource,
  wrap: (driver: BlockDriver) => MaybePromise<BlockDriver>,
): DriverSource {
  return {
    ...source,
    name: `${name} over ${source.name}`,
    async open(lengthBytes): Promise<DriverTarget> {
      const target = targetOf(await source.open(lengthBytes));
      const reopen = target.reopen;
      return {
        ...target,
        driver: both(await wrap(target.driver), target.driver),
        ...(reopen === undefined
          ? {}
          : {
              reopen: async (): Promise<BlockDriver> => {
                const inner = await reopen();
                return both(await wrap(inner), inner);
              },
            }),
      };
    },
  };
}

/** The outer driver, whose flush and close reach the inner one as well, as in a graph. */
function both(outer: BlockDriver, inner: BlockDriver): BlockDriver {
  return new Proxy(outer, {
    get(target, key): unknown {
      if (key === "flushToOs") {
        return async () => {
          await outer.flushToOs();
          await inner.flushToOs();
        };
      }
      if (key === "flushToDisk") {
        return async () => {
          await outer.flushToDisk();
          await inner.flushToDisk();
        };
      }
      if (key === "close") {
        return async () => {
          await outer.close();
          await inner.close();
        };
      }
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
