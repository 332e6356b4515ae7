// What must hold of an image that was changed as a whole when the power failed: what plain images must, and its snapshots,
// bitmaps and header can be read. Where it is marked for a repair, or flags are wrong, that repair loses nothing, wherever
// it is cut off.
import { directChild } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { checkQcow2, readHeader } from "@blocklayer/qcow2";
import { crashStates, Random, SimDisk, stampedBytes, Trace } from "@blocklayer/sim";
import { Violation } from "./guest-run.mjs";
import { asViolation, contentOf, findingsText, Inspector } from "./inspect.mjs";
import { firstDifference } from "./upkeep-model.mjs";
import { dirtySectors } from "./upkeep-run.mjs";

const DIRTY_BIT = 1n;
const LAZY_BIT = 1n;
/** What a check says of flags that are not what the refcounts say. */
const FLAG_FINDING = /^ERROR OFLAG_COPIED/;
/** What it says beside that of refcounts that were put off. */
const REFCOUNT_FINDING = /^ERROR cluster \d+ refcount=\d+ reference=\d+/;
/** States of a repair that was cut off, at one moment. */
const REPAIR_SUBSETS = 2;
/** One state in so many of those that want a repair gets one: neighbours are much the same. */
const REPAIR_EVERY = 4;
/** One repair in so many is cut off: at every point, then. */
const CUT_OFF_EVERY = 16;
const LAST_TAG = 2_000_000;

export class UpkeepInspector extends Inspector {
  #wanting = 0;
  /** What was looked at, for the totals. */
  counts = { repaired: 0, cutOff: 0 };

  /**
   * @param {import("./inspect.mjs").Disks} disks
   * @returns {Promise<import("./upkeep-model.mjs").Found & { leaks: number }>}
   * @throws Violation
   */
  async look(disks) {
    try {
      const found = await this.#see(disks);
      if ((found.dirty || found.hasWrongFlags) && this.#wanting++ % REPAIR_EVERY === 0) {
        await this.#repairAndCompare(disks, found);
      }
      return found;
    } catch (error) {
      throw asViolation("the image cannot be read", error);
    }
  }

  /** Everything that a user can see. */
  async #see(disks) {
    const file = directChild(disks.file);
    const header = await readHeader(file);
    const dirty = (header.incompatible & DIRTY_BIT) !== 0n;
    const { corruptions, checkErrors, leaks, findings } = await checkQcow2(file, header);
    const errors = findings.filter(({ severity }) => severity !== "leak");
    const isFlag = ({ message }) => FLAG_FINDING.test(message);
    const isExpected = (one) => isFlag(one) || (dirty && REFCOUNT_FINDING.test(one.message));
    if (checkErrors > 0 || !errors.every(isExpected)) {
      throw new Violation(`the check finds ${corruptions} corruptions:\n${findingsText(findings)}`);
    }
    const image = await this.open(disks, { readOnly: true });
    const bytes = await contentOf(image);
    const snapshots = [];
    for (const { id, name } of await image.snapshots.list()) {
      snapshots.push({ name, bytes: await this.#snapshotContent(disks, id) });
    }
    const bitmaps = [];
    for (const one of await image.bitmaps.list()) {
      const ranges = one.inconsistent ? [] : await image.bitmaps.dirtyRanges(one.name, 0, Infinity);
      bitmaps.push({ ...one, dirty: dirtySectors(ranges, bytes.length / 512) });
    }
    await image.close();
    return {
      bytes,
      snapshots,
      bitmaps,
      header: {
        version: header.version,
        refcountBits: 2 ** header.refcountOrder,
        lazyRefcounts: (header.compatible & LAZY_BIT) !== 0n,
        backing: header.backingFilename,
      },
      dirty,
      hasWrongFlags: !dirty && errors.some(isFlag),
      // What a dirty image counts says nothing.
      leaks: dirty ? 0 : leaks,
    };
  }

  async #snapshotContent(disks, id) {
    const view = await this.open(disks, { readOnly: true, options: { "snapshot.id": id } });
    const bytes = await contentOf(view);
    await view.close();
    return bytes;
  }

  /** A repair shows the same image, and leaves nothing to repair. Now and then it is cut off, too. */
  async #repairAndCompare(disks, before) {
    if (this.counts.repaired++ % CUT_OFF_EVERY > 0) {
      await this.#repair(copyOf(disks), before);
      return;
    }
    const trace = new Trace();
    const { file } = disks;
    const traced = { ...copyOf(disks), file: new SimDisk({ content: file.bytes, trace }) };
    await this.#repair(traced, before);
    const seed = this.counts.repaired;
    for (const state of crashStates(trace, { seed, maxSubsets: REPAIR_SUBSETS, tear: true })) {
      const again = { ...copyOf(disks), file: state.open() };
      try {
        this.#mustShow(await this.#see(again), before);
        await this.#repair(again, before);
        this.counts.cutOff++;
      } catch (error) {
        throw asViolation(`the repair was cut off: ${state.describe()}`, error);
      }
    }
  }

  /** As a user does: a dirty image is opened to be written, another one is checked with a wish to mend all. */
  async #repair(disks, before) {
    const image = await this.open(disks, { readOnly: false });
    if (!before.dirty) await image.check({ fix: "all" });
    await image.close();
    const after = await this.#see(disks);
    this.#mustShow(after, before);
    if (after.dirty || after.hasWrongFlags || after.leaks > 0) {
      const left = { dirty: after.dirty, wrongFlags: after.hasWrongFlags, leaks: after.leaks };
      throw new Violation(`a repair leaves ${JSON.stringify(left)}`);
    }
  }

  /** A repair keeps all that can be read. */
  #mustShow(after, before) {
    if (firstDifference(after.bytes, before.bytes) >= 0) {
      throw new Violation("a repair changed the disk");
    }
    const words = ({ snapshots, bitmaps }) =>
      JSON.stringify([
        snapshots.map(({ name, bytes }) => [name, Buffer.from(bytes).toString("base64")]),
        bitmaps.map(({ name, inconsistent, dirty }) => [name, inconsistent, dirty.join("")]),
      ]);
    if (words(after) !== words(before)) {
      throw new Violation("a repair changed snapshots or bitmaps");
    }
  }

  /** Also takes a snapshot, writes over what it holds, and looks at all of them. */
  async goOn(disks, before, seed) {
    const expected = new Uint8Array(before.bytes);
    const random = new Random(seed + 1);
    try {
      const image = await this.open(disks, { readOnly: false });
      if (random.oneIn(2)) await image.check({ fix: random.pick(["leaks", "all"]) });
      const snapshots = before.snapshots.slice();
      await this.writeOn(image, expected, seed);
      if (await this.#takeSnapshot(image)) {
        snapshots.push({ name: "later", bytes: expected.slice() });
      }
      const length = Math.min(this.config.clusterSize * 2, expected.length);
      const bytes = stampedBytes(LAST_TAG, 0, length);
      await image.writev(0, IoVector.of(bytes));
      expected.set(bytes);
      const [first] = snapshots;
      if (first !== undefined && random.oneIn(2)) {
        await image.snapshots.delete(snapshots.shift().name);
      }
      await image.flushToOs();
      await image.close();
      const found = await this.#see(disks);
      if (found.hasWrongFlags && !before.hasWrongFlags) throw new Violation("flags are wrong now");
      if (firstDifference(found.bytes, expected) >= 0) {
        throw new Violation("the disk is not what was written after the crash");
      }
      const names = (list) => list.map(({ name }) => name).join();
      if (names(found.snapshots) !== names(snapshots)) {
        throw new Violation(`snapshots are ${names(found.snapshots)}, not ${names(snapshots)}`);
      }
      for (const [i, one] of snapshots.entries()) {
        if (firstDifference(found.snapshots[i].bytes, one.bytes) >= 0) {
          throw new Violation(`snapshot '${one.name}' is not what it was`);
        }
      }
    } catch (error) {
      throw asViolation("work after a crash", error);
    }
  }

  /** @returns whether there was room for one */
  async #takeSnapshot(image) {
    try {
      await image.snapshots.create({ name: "later", dateSeconds: 0, dateNanoseconds: 0 });
      return true;
    } catch (error) {
      if (error instanceof BlockError && ["EINVAL", "ENOTSUP"].includes(error.code)) return false;
      throw error;
    }
  }
}

function copyOf({ file, data }) {
  const copy = (disk) => new SimDisk({ content: disk.bytes, volatileCache: false });
  return { file: copy(file), ...(data === undefined ? {} : { data: copy(data) }) };
}
