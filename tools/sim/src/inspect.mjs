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

/**
 * @typedef {object} Disks - that an image lies on
 * @property {SimDisk} file
 * @property {SimDisk} [data] - its external data file
 */

/** The disks of an image as one of their contents has them. */
export function disksOf(/** @type {import("./stack.mjs").ImageBytes} */ { file, data }) {
  const diskOf = (content) => new SimDisk({ content, volatileCache: false });
  return { file: diskOf(file), ...(data === undefined ? {} : { data: diskOf(data) }) };
}

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
   * @param {Disks} disks
   * @returns {Promise<{ bytes: Uint8Array, leaks: number }>}
   * @throws Violation
   */
  async look(disks) {
    try {
      const leaks = await this.#check(directChild(disks.file));
      const image = await this.open(disks, { readOnly: true });
      const bytes = await contentOf(image);
      await image.close();
      return { bytes, leaks };
    } catch (error) {
      throw asViolation("the image cannot be read", error);
    }
  }

  /**
   * Goes on with an image after a crash: writes, flushes, and looks again.
   *
   * @param {Disks} disks
   * @param {{ bytes: Uint8Array }} before - what `look` found
   * @param {number} seed
   */
  async goOn(disks, before, seed) {
    const expected = new Uint8Array(before.bytes);
    try {
      const image = await this.open(disks, { readOnly: false });
      await this.writeOn(image, expected, seed);
      await image.flushToOs();
      await image.close();
      const { bytes } = await this.look(disks);
      const wrong = bytes.findIndex((byte, index) => byte !== expected[index]);
      if (wrong >= 0) throw new Violation(`byte ${wrong} is not what was written after the crash`);
    } catch (error) {
      throw asViolation("work after a crash", error);
    }
  }

  /** Writes here and there, also into what is to be expected then. */
  async writeOn(image, expected, seed) {
    const random = new Random(seed);
    for (let i = 0; i < RECOVERY_WRITES; i++) {
      const { clusterSize, dataFile } = this.config;
      const compressed = random.oneIn(2) && dataFile === undefined;
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
  }

  async #check(file) {
    const { corruptions, checkErrors, leaks, findings } = await checkQcow2(
      file,
      await readHeader(file),
    );
    if (corruptions === 0 && checkErrors === 0) return leaks;
    throw new Violation(`the check finds ${corruptions} corruptions:\n${findingsText(findings)}`);
  }

  /** Opens the image alone, without a graph. */
  open({ file, data }, { readOnly, ...rest }) {
    return openQcow2({
      file: directChild(file),
      readOnly,
      createCodec: simCodec(),
      ...(data === undefined ? {} : { dataFile: directChild(data) }),
      ...(this.#backing === undefined ? {} : { backing: this.#backing }),
      ...(readOnly ? {} : { options: openOptionsOf(this.config) }),
      ...rest,
    });
  }
}

/** All bytes of a disk. */
export async function contentOf(image) {
  const bytes = new Uint8Array(image.lengthBytes);
  await image.readv(0, IoVector.of(bytes));
  return bytes;
}

/** The error as a Violation: whatever stops an inspection is one. */
export function asViolation(what, error) {
  return error instanceof Violation ? error : new Violation(what, error);
}

/** What a check found, a line each. */
export function findingsText(findings) {
  return findings.map(({ message }) => `  ${message}`).join("\n");
}
