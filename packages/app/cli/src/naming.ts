/** Says in a message which file it is about, as qemu-img does: `Could not open 'disk.qcow2': …`. */
import { BlockError } from "@blocklayer/bytes";

/** Errors of opening `filename`. */
export async function whileOpening<T>(filename: string, work: () => Promise<T>): Promise<T> {
  return await withPrefix(`Could not open '${filename}': `, filename, work);
}

/** Errors of work on `filename` that begins with opening it: what comes later speaks for itself. */
export async function whileWorkingOn<T>(filename: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const isLater = error instanceof BlockError && error.op !== undefined && error.op !== "open";
    if (isLater) throw error;
    return await whileOpening(filename, () => Promise.reject(error as Error));
  }
}

/** Errors of making `filename`. `what` tells more: `error while converting qcow2: `. */
export async function whileMaking<T>(
  filename: string,
  what: string,
  work: () => Promise<T>,
): Promise<T> {
  return await withPrefix(`${filename}: ${what}`, filename, work);
}

async function withPrefix<T>(prefix: string, filename: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BlockError) || error.code === "ECANCELED") throw error;
    if (error.message.startsWith(prefix)) throw error;
    const own = `'${filename}': `;
    const rest = error.message.startsWith(own) ? error.message.slice(own.length) : error.message;
    const { op, node, offset, length } = error;
    throw new BlockError(error.code, prefix + rest, {
      cause: error,
      ...(op === undefined ? {} : { op }),
      ...(node === undefined ? {} : { node }),
      ...(offset === undefined ? {} : { offset }),
      ...(length === undefined ? {} : { length }),
    });
  }
}
