/**
 * Makes empty images.
 *
 * Above: the tool's `create`, ConvertTarget. Below: the protocol's `createFile` and the format's `create`.
 *
 * 1. Nothing is touched before every option is checked and the backing image was opened.
 * 2. A format that refuses its options refuses them first in memory: a file that is there already is not emptied
 *    for an image that cannot be.
 * 3. After a failure a file that this call made is gone. A file that was there before is never removed.
 */
import { directChild } from "@blocklayer/block-api";
import { type FullCreatePlan, planCreation } from "./create-plan.js";
import { rehearse } from "./rehearsal.js";
import type { CreateImageOptions, CreateImageResult } from "./types.js";

/**
 * Makes an empty image.
 *
 * @throws BlockError `EINVAL` for options that make no sense, and what the drivers throw. **After failure:** a new file is
 *   removed; a file that was there before may be empty
 * @example await createImage({ drivers, filename: "vm.qcow2", format: "qcow2", sizeBytes: 10 * GiB })
 */
export async function createImage(options: CreateImageOptions): Promise<CreateImageResult> {
  const plan = await planCreation(options);
  options.onFormatting?.(plan.shown);
  const { isNewFile } = await carryOut(plan, options.signal);
  return { ...plan.shown, isNewFile };
}

/** What became of the store. */
export interface Creation {
  /** Nothing of that name was there before. */
  readonly isNewFile: boolean;
  /** The store was empty when the format came: what the format did not write reads as zeroes. */
  readonly isFreshStore: boolean;
}

/** Makes the store and writes the format into it. */
export async function carryOut(
  plan: FullCreatePlan,
  signal: AbortSignal | undefined,
): Promise<Creation> {
  const { store } = plan;
  const isNewFile = !(await store.exists());
  if (!isNewFile) await rehearse(plan);
  try {
    await store.make(plan.storeOptions, signal);
    const isFreshStore = await format(plan, signal);
    return { isNewFile, isFreshStore };
  } catch (error) {
    if (isNewFile) await store.remove();
    throw error;
  }
}

/** @returns whether the store was empty before */
async function format(plan: FullCreatePlan, signal: AbortSignal | undefined): Promise<boolean> {
  const driver = await plan.store.open(false);
  const isFreshStore = driver.lengthBytes === 0;
  let failure: { readonly error: unknown } | undefined;
  try {
    const context = { file: directChild(driver), options: plan.formatOptions };
    await plan.format.create?.(signal === undefined ? context : { ...context, signal });
  } catch (error) {
    failure = { error };
  }
  try {
    await driver.close();
  } catch (error) {
    failure ??= { error };
  }
  if (failure !== undefined) throw failure.error;
  return isFreshStore;
}
