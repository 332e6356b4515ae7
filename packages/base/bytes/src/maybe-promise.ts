/** A value now, or a promise of it: what lets a cache hit cost no turn of the event loop. */
export type MaybePromise<T> = T | Promise<T>;

/**
 * Goes on with `next` at once when the value is there, else when it arrives.
 * (Not called `then`: a module that exports that name is taken for a promise by `import()`.)
 *
 * @example andThen(cache.get(offset), (table) => table.entry(3))
 */
export function andThen<T, U>(
  value: MaybePromise<T>,
  next: (value: T) => MaybePromise<U>,
): MaybePromise<U> {
  return value instanceof Promise ? value.then(next) : next(value);
}
