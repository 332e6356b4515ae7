/**
 * Makes a failing list as short and as plain as it gets while it still fails.
 *
 * Above: shrink.ts for the suite's operations, tools/sim for its own. Pure but for the runs that it asks for.
 */

/** Runs that shrinking may take: a slow driver must not hold a report up for ever. */
const DEFAULT_MAX_ATTEMPTS = 600;

/** How a list is judged, and how an item of it is made plainer. */
export interface ShrinkOptions<T> {
  /** Whether a list still fails. */
  readonly stillFails: (items: readonly T[]) => Promise<boolean>;
  /** Ways to make an item simpler, the boldest first: what to put in its place. Each way ends. */
  readonly simplerOnes: (item: T) => readonly (readonly T[])[];
  /** Runs at most, by default 600. */
  readonly maxAttempts?: number;
}

/**
 * @param items - a list that fails
 * @returns a list that fails too
 */
export async function shrinkList<T>(
  items: readonly T[],
  { stillFails, simplerOnes, maxAttempts = DEFAULT_MAX_ATTEMPTS }: ShrinkOptions<T>,
): Promise<readonly T[]> {
  let attempts = 0;
  const fails = async (list: readonly T[]): Promise<boolean> => {
    if (attempts >= maxAttempts) return false;
    attempts++;
    return stillFails(list);
  };
  let best = await dropChunks(items, fails);
  for (let index = 0; index < best.length; ) {
    const simpler = await simplifyAt(best, index, simplerOnes, fails);
    if (simpler === undefined) index++;
    else best = simpler;
  }
  return dropChunks(best, fails);
}

/** Takes out halves, quarters, … and single items for as long as the rest fails. */
async function dropChunks<T>(
  items: readonly T[],
  fails: (list: readonly T[]) => Promise<boolean>,
): Promise<readonly T[]> {
  let best = items;
  for (
    let size = Math.ceil(best.length / 2);
    size >= 1;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let start = best.length - size; start > -size; start -= size) {
      const rest = best.filter((_, index) => index < start || index >= start + size);
      if (rest.length < best.length && (await fails(rest))) best = rest;
    }
  }
  return best;
}

/** The list with one item made simpler, if one of the ways still fails. */
async function simplifyAt<T>(
  items: readonly T[],
  index: number,
  simplerOnes: ShrinkOptions<T>["simplerOnes"],
  fails: (list: readonly T[]) => Promise<boolean>,
): Promise<readonly T[] | undefined> {
  for (const simpler of simplerOnes(items[index] as T)) {
    const list = [...items.slice(0, index), ...simpler, ...items.slice(index + 1)];
    if (await fails(list)) return list;
  }
  return undefined;
}
