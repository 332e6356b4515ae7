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
import {
  type BlockDriver,
  directChild,
  type OptionValues,
  parseOptions,
} from "@blocklayer/block-api";
import { type FullCreatePlan, planCreation } from "./create-plan.js";
import { rehearse } from "./rehearsal.js";
import type { Store } from "./store.js";
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
  /** The same of an external data file. */
  readonly isNewDataFile: boolean;
  /** The stores were empty when the format came: what the format did not write reads as zeroes. */
  readonly isFreshStore: boolean;
}

/** Makes the stores and writes the format into them. */
export async function carryOut(
  plan: FullCreatePlan,
  signal: AbortSignal | undefined,
): Promise<Creation> {
  const { store, dataStore } = plan;
  const isNewFile = !(await store.exists());
  const isNewDataFile = dataStore !== undefined && !(await dataStore.exists());
  if (!isNewFile || (dataStore !== undefined && !isNewDataFile)) await rehearse(plan);
  try {
    await dataStore?.make(defaultsOf(dataStore), signal);
    await store.make(plan.storeOptions, signal);
    const isFreshStore = await format(plan, signal);
    return { isNewFile, isNewDataFile, isFreshStore };
  } catch (error) {
    if (isNewFile) await store.remove();
    if (isNewDataFile) await dataStore.remove();
    throw error;
  }
}

function defaultsOf({ definition }: Store): OptionValues {
  return parseOptions(definition.createOptions ?? {}, {}, definition.name);
}

/** @returns whether the stores were empty before */
async function format(plan: FullCreatePlan, signal: AbortSignal | undefined): Promise<boolean> {
  const open: BlockDriver[] = [];
  const openStore = async (store: Store): Promise<BlockDriver> => {
    const driver = await store.open(false);
    open.push(driver);
    return driver;
  };
  let isFreshStore = false;
  let failure: { readonly error: unknown } | undefined;
  try {
    const file = await openStore(plan.store);
    const dataFile = plan.dataStore && (await openStore(plan.dataStore));
    isFreshStore = open.every(({ lengthBytes }) => lengthBytes === 0);
    await plan.format.create?.({
      file: directChild(file),
      options: plan.formatOptions,
      ...(dataFile === undefined ? {} : { dataFile: directChild(dataFile) }),
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    failure = { error };
  }
  for (const driver of open) {
    try {
      await driver.close();
    } catch (error) {
      failure ??= { error };
    }
  }
  if (failure !== undefined) throw failure.error;
  return isFreshStore;
}
