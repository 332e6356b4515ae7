// Runs a list of operations on a stack, and tells the model what happened.
//
// 1. An operation that need not be waited for runs beside the next ones, `maxInFlight` at most.
// 2. Whatever goes wrong that must not is a Violation; the first one ends the run.
// 3. An error is allowed only when a fault was armed before, and only with the code of a fault; later also with
//    that of a node that failed, when it has.
import { BlockError } from "@blocklayer/bytes";
import { ReferenceDisk, TrackedGuest } from "@blocklayer/sim";
import { dataOf } from "./operations.mjs";
import { initialContent } from "./stack.mjs";

/** Something that must never happen. */
export class Violation extends Error {
  constructor(what, cause) {
    super(cause === undefined ? what : `${what}: ${cause.stack ?? cause}`, { cause });
    this.name = "Violation";
  }
}

export class GuestRun {
  /** A fault was armed, so requests may fail. */
  armed = false;
  /** One was, after which clusters may leak. */
  mayLeak = false;
  /** The image could not be closed, or opened again: nothing more can be asked of it. */
  ended = false;
  /** @type {Violation | undefined} */
  violation;
  #inFlight = new Set();
  #device;

  /**
   * @param {import("./stack.mjs").Stack} stack
   * @param {import("@blocklayer/sim").Trace} [trace]
   */
  constructor(stack, trace) {
    this.stack = stack;
    const { config } = stack;
    this.armed = config.spaceBytes !== undefined;
    this.mayLeak = this.armed;
    this.#device = {
      readv: (...words) => stack.backend.readv(...words),
      writev: (...words) => stack.backend.writev(...words),
      writeZeroes: (...words) => stack.backend.writeZeroes(...words),
      discard: (...words) => stack.backend.discard(...words),
      truncate: (...words) => stack.backend.truncate(...words),
      flush: () => this.#flush(),
    };
    this.follow(
      new ReferenceDisk({
        lengthBytes: config.lengthBytes,
        content: initialContent(config),
        ...(trace === undefined ? {} : { trace }),
      }),
    );
  }

  /** From here on this model is told what happens. */
  follow(reference) {
    this.reference = reference;
    this.guest = new TrackedGuest(this.#device, reference);
  }

  /** Runs the list to its end, or to the first violation. */
  async run(operations) {
    await this.stack.open();
    for (const operation of operations) {
      if (this.violation !== undefined || this.ended) break;
      if (operation.kind === "fault") {
        this.armed = true;
        // A write that fails gives back what was taken for it: see Stack. Other faults may come in between.
        if (operation.fault.kind !== "write") this.mayLeak = true;
        this.stack.file.inject(operation.fault);
        continue;
      }
      if (this.needsRest(operation)) await this.rest();
      const done = this.#attempt(operation, () => this.start(operation)).then(() => {
        this.#inFlight.delete(done);
      });
      this.#inFlight.add(done);
      if (operation.wait !== false) await done;
      while (this.#inFlight.size >= this.stack.config.maxInFlight)
        await Promise.race(this.#inFlight);
    }
    await this.rest();
  }

  /** Whether an operation begins only when nothing is in flight. */
  needsRest({ kind }) {
    return kind === "cycle";
  }

  /** Compares what lies in the file with the model: after a clean end exactly, otherwise as after a crash. */
  accept({ bytes }, { isClean, position = this.reference.now }) {
    if (isClean) this.reference.check(bytes);
    else this.reference.checkCrash(bytes, position);
  }

  /** The end of the image's time. */
  close() {
    return this.stack.close();
  }

  /** Waits for what is in flight. */
  async rest() {
    await Promise.all(this.#inFlight);
  }

  async #attempt(operation, work) {
    try {
      await work();
    } catch (error) {
      if (!this.isAllowed(error, operation)) {
        this.violation ??= new Violation(operation.kind, error);
      }
    }
  }

  /** Whether an operation may fail like this. */
  isAllowed(error) {
    if (!(error instanceof BlockError)) return false;
    if (error.code === "ENOTSUP" && error.op?.includes("zero")) return true;
    if (error.code === "ENODEFAILED") return this.armed && this.stack.hasFailed;
    return this.armed && (error.code === "EIO" || error.code === "ENOSPC");
  }

  /** A node that has failed says so to every flush. */
  async #flush() {
    const hadFailed = this.stack.hasFailed;
    await this.stack.backend.flush();
    if (hadFailed) throw new Violation("a flush succeeded after the node, or the disk, had failed");
  }

  /** Carries an operation out. */
  async start(operation) {
    const { guest, stack } = this;
    const { kind } = operation;
    if (kind === "flush") return guest.flush();
    if (kind === "cache") return stack.setCache(operation.mode);
    if (kind === "cycle") return this.#cycle();
    if (kind === "grow") return this.#grow(operation);
    const disk = stack.backend.lengthBytes;
    const { offset } = operation;
    if (offset >= disk) return;
    const length = Math.min(operation.length, disk - offset);
    switch (kind) {
      case "write":
        return guest.write(offset, dataOf(operation, offset, length), {
          fua: operation.fua === true,
        });
      case "compressed":
        return guest.write(offset, dataOf(operation, offset, length), { compressed: true });
      case "zeroes": {
        const { mayUnmap = false, noFallback = false } = operation;
        return guest.writeZeroes(offset, length, { mayUnmap, noFallback });
      }
      case "discard":
        return guest.discard(offset, length);
      case "read":
        return guest.read(offset, length);
      default:
        throw new Violation(`there is no operation '${kind}'`);
    }
  }

  async #grow({ length, preallocation = "off" }) {
    const { stack, reference } = this;
    const lengthBytes = Math.max(stack.backend.lengthBytes + length, reference.lengthBytes);
    // A longer backing file must not show through.
    const zeroWrite = (stack.config.backingBytes ?? 0) > stack.backend.lengthBytes;
    await this.guest.grow(lengthBytes, { zeroWrite, preallocation });
  }

  async #cycle() {
    try {
      await this.stack.close();
    } catch (error) {
      this.ended = true;
      throw error;
    }
    try {
      await this.stack.open();
    } catch (error) {
      if (!this.isAllowed(error, { kind: "cycle" })) throw error;
      // Whoever opens a disk that fails tries again.
      this.stack.file.clearFaults();
      await this.stack.open();
    }
  }
}
