/** Runs a list of operations on a fresh disk and on the model, and compares what is read. */
import { alignDown, hex } from "@blocklayer/bytes";
import { ConformanceError, expectBytes, expectThat } from "../expectation.js";
import { pattern } from "../pattern.js";
import type { DriverSource } from "../source.js";
import { type TestDisk, withDisk } from "../test-disk.js";
import { ByteModel } from "./byte-model.js";
import { fitOperation, type Operation } from "./operations.js";

/**
 * @returns the first difference, or `undefined` when disk and model agree to the end
 */
export async function runOperations(
  source: DriverSource,
  operations: readonly Operation[],
): Promise<Error | undefined> {
  try {
    await withDisk(source, async (disk) => {
      const model = new ByteModel(disk.initialContent());
      for (const operation of operations) {
        const fitting = fitOperation(operation, model.lengthBytes);
        if (fitting !== undefined) await runOperation(disk, model, fitting);
      }
      await compare(disk, model, 0, model.lengthBytes, "the whole disk at the end");
    });
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new ConformanceError(String(error));
  }
}

async function runOperation(disk: TestDisk, model: ByteModel, operation: Operation): Promise<void> {
  switch (operation.kind) {
    case "read":
      return compare(disk, model, operation.offset, operation.lengthBytes, "readv()");
    case "status":
      return checkStatus(disk, model, operation.offset, operation.lengthBytes);
    case "flush":
      return disk.flush();
    case "reopen":
      return disk.reopen();
    case "truncate": {
      const isShorter = operation.lengthBytes < model.lengthBytes;
      if (isShorter && !(await shrink(disk, operation.lengthBytes))) return;
      if (!isShorter) await disk.driver.truncate(operation.lengthBytes);
      break;
    }
    default:
      await send(disk, operation);
  }
  model.apply(operation);
}

async function send(disk: TestDisk, operation: Operation): Promise<void> {
  switch (operation.kind) {
    case "write": {
      const bytes = pattern(operation.seed, operation.lengthBytes);
      await disk.write(operation.offset, bytes, { fua: operation.fua }, operation.parts);
      return;
    }
    case "zero": {
      const { offset, lengthBytes, mayUnmap } = operation;
      await disk.writeZeroes(offset, lengthBytes, { mayUnmap });
      return;
    }
    case "discard":
      await disk.discard(operation.offset, operation.lengthBytes);
      return;
    case "together":
      await Promise.all(operation.steps.map((step) => send(disk, step)));
      return;
    default:
  }
}

/** @returns whether the disk got shorter; a driver may refuse that */
async function shrink(disk: TestDisk, lengthBytes: number): Promise<boolean> {
  try {
    await disk.driver.truncate(lengthBytes);
    return true;
  } catch (error) {
    const isRefusal = (error as { code?: unknown }).code === "ENOTSUP";
    if (!isRefusal) throw error;
    return false;
  }
}

async function compare(
  disk: TestDisk,
  model: ByteModel,
  offset: number,
  lengthBytes: number,
  what: string,
): Promise<void> {
  const wholeUnits = alignDown(lengthBytes, disk.unit);
  const actual = await disk.read(offset, wholeUnits);
  expectBytes(actual, model.expected(offset, actual), offset, what);
}

async function checkStatus(
  disk: TestDisk,
  model: ByteModel,
  offset: number,
  lengthBytes: number,
): Promise<void> {
  const status = await disk.driver.blockStatus(offset, lengthBytes, { wantZero: true });
  const length = status.lengthBytes;
  const what = `blockStatus(${hex(offset)}, ${lengthBytes})`;
  expectThat(length >= 1 && length <= lengthBytes, `${what}: length ${length}`);
  expectThat(!status.zero || model.mayBeZero(offset, length), `${what}: says zero of data`);
}
