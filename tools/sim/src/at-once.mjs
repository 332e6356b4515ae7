// Work that waits for nothing outside of this thread: it ends within a turn of the event loop, or never.
//
// Without a scheduler the disk and the codec answer at once, so all that is left are promises; a turn ends only when
// none of them can go on. What has not ended then is a deadlock, whatever the clock says. (Work that goes round in
// circles never lets a turn end: pool.mjs watches for that.)

/** One would do; some more for code that gives others a turn. */
const MAX_TURNS = 1000;

/**
 * Does work and waits for its end.
 *
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 * @throws what the work throws; an Error when it waits for something that never happens
 */
export async function atOnce(work) {
  const started = work();
  let settled = false;
  const noteEnd = () => {
    settled = true;
  };
  started.then(noteEnd, noteEnd);
  for (let turn = 0; turn < MAX_TURNS; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
    if (settled) return started;
  }
  throw new Error("nothing is pending and the work has not ended: it waits for what never happens");
}
