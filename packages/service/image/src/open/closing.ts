/** Closing what was opened for a piece of work: the error of the work is the one to tell, not that of closing after it. */
import type { BlockBackend } from "@blocklayer/block-graph";

/** Works with images, and closes them. Those that come up meanwhile may be added to the list. */
export async function closing<T>(
  images: readonly BlockBackend[],
  work: () => Promise<T>,
): Promise<T> {
  let result: T;
  try {
    result = await work();
  } catch (error) {
    for (const image of images) await image.close().catch(() => undefined);
    throw error;
  }
  for (const image of images) await image.close();
  return result;
}
