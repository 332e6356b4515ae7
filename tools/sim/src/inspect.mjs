// What must hold of an image that lies on a disk: it opens, `check` finds leaks at most, the guest sees what it may.
import { directChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { checkQcow2, openQcow2, readHeader } from "@blocklayer/qcow2";
import { Random, SimDisk, stampedBytes } from "@blocklayer/sim";
import { simCodec } from "./codec.mjs";
import { Violation } from "./guest-run.mjs";
import { backingContent, openOptionsOf } from "./stack.mjs";

/** Tags of what is written after a crash, apart from those of the guest before it. */
const RECOVERY_TAG = 1_000_000;
const RECOVERY_WRITES = 6;

/** Looks at images of one configuration. */
export class Inspector {
  #backing;

  /** @param {import("./config.mjs").SimConfig} config */
  constructor(config) {
    this.config = config;
    const content = backingContent(config);
    if (content !== undefined) {
      this.#backing = directChild(new SimDisk({ content, readOnly: true, volatileCache: false }));
    }
  }

  /**
   * Opens an image read-only, checks it, and reads all of it.
   *
   * @param {SimDisk} disk
   * @returns {Promise<{ bytes: Uint8Array, leaks: number }>}
   * @throws Violation
   */
  async look(disk) {
    const file = directChild(disk);
    try {
      const leaks = await this.#check(file);
      const image = await this.#open(file, true);
      const bytes = new Uint8Array(image.lengthBytes);
      await image.readv(0, IoVector.of(bytes));
      await image.close();
      return { bytes, leaks };
    } catch (error) {
      throw asViolation("the image cannot be read", error);
    }
  }

  /**
   * Goes on with an image after a crash: writes, flushes, and looks again.
   *
   * @param {SimDisk} disk
   * @param {Uint8Array} before - what `look` found
   * @param {number} seed
   */
  async goOn(disk, before, seed) {
    const random = new Random(seed);
    const expected = new Uint8Array(before);
    const file = directChild(disk);
    try {
      const image = await this.#open(file, false);
      for (let i = 0; i < RECOVERY_WRITES; i++) {
        const { clusterSize } = this.config;
        const compressed = random.oneIn(2);
        const unit = compressed ? clusterSize : 512;
        const offset = unit * random.below(Math.ceil(expected.length / unit));
        const length = Math.min(unit * random.between(1, 5), expected.length - offset);
        if (random.oneIn(4)) {
          await image.writeZeroes(offset, length, { mayUnmap: true });
          expected.fill(0, offset, offset + length);
          continue;
        }
        const bytes = stampedBytes(RECOVERY_TAG + i, offset, length);
        await image.writev(offset, IoVector.of(bytes), { compressed });
        expected.set(bytes, offset);
      }
      await image.flushToOs();
      await image.close();
      const { bytes } = await this.look(disk);
      const wrong = bytes.findIndex((byte, index) => byte !== expected[index]);
      if (wrong >= 0) throw new Violation(`byte ${wrong} is not what was written after the crash`);
    } catch (error) {
      throw asViolation("work after a crash", error);
    }
  }

  async #check(file) {
    const { corruptions, checkErrors, leaks, findings } = await checkQcow2(
      file,
      await readHeader(file),
    );
    if (corruptions === 0 && checkErrors === 0) return leaks;
    throw new Violation(`the check finds ${corruptions} corruptions:\n${findingsText(findings)}`);
  }

  #open(file, readOnly) {
    return openQcow2({
      file,
      readOnly,
      createCodec: simCodec(),
      ...(this.#backing === undefined ? {} : { backing: this.#backing }),
      ...(readOnly ? {} : { options: openOptionsOf(this.config) }),
    });
  }
}

/** The error as a Violation: whatever stops an inspection is one. */
export function asViolation(what, error) {
  return error instanceof Violation ? error : new Violation(what, error);
}

function findingsText(findings) {
  return findings.map(({ message }) => `  ${message}`).join("\n");
}
