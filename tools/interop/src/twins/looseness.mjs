// How much the maps of twins may differ, image by image.
//
// Guest bytes never may. Where a tool copies it cuts as it likes, and what it made that way is carried along: into what
// is converted from it, and into all images above it.

/** @enum {number} */
export const LOOSE = {
  /** Only host offsets differ. */
  strict: 0,
  /**
   * Made by a copy: neighbours in the disk may have places or not. Or an end of the disk cut a cluster of it: what lies behind
   * such an end blk zeroes, and a compressed cluster is plain then.
   */
  placed: 1,
  /**
   * Zeroes went into a part of a cluster: over a backing file QEMU asks the whole chain, and the host's files for holes,
   * whether the rest is zero, too, and blk the next image; in subclusters beside a compressed cluster blk flags what QEMU writes.
   * Or the cluster that the disk's end cuts lies in a data file: blk flags it where it is zero as a whole.
   */
  zeroed: 2,
  /**
   * Written by a commit: QEMU copies in steps of 64 KiB, and zeroes as they come. Or zeroes went into a version 2 image over a
   * backing file: QEMU writes them as bytes also behind the end of that file, where blk has nothing to do. Or the image is new,
   * with subclusters and a raw data file: for QEMU they are not in the file, whatever is written there later; for blk they are.
   */
  unknown: 3,
};

/** Copies into units below 4 KiB: QEMU cuts where its source does, blk in steps of that. */
const HAS_SMALL_UNITS = /cluster_size=512\b|extended_l2=on/;

const BELOW = ["@mid.qcow2", "@base.qcow2"];

export class Looseness {
  /** @type {Map<string, number>} by image */
  #levels = new Map();
  #zeroesAreLoose = false;

  /**
   * One of LOOSE.
   *
   * @param {string} image
   * @param {boolean} hasBacking - then it shows what lies below it
   */
  of(image, hasBacking) {
    const below = hasBacking ? BELOW.map((layer) => this.#own(layer)) : [];
    return Math.max(this.#own(image), ...below);
  }

  /**
   * A request of a guest.
   *
   * @param {import("../guest-ops.mjs").GuestOp} op
   * @param {number} version - of the image
   */
  afterRequest(image, { kind }, version) {
    const isZero = kind === "zeroes" || kind === "unmap";
    if (!isZero || !this.#zeroesAreLoose) return;
    this.#raise(image, version < 3 ? LOOSE.unknown : LOOSE.zeroed);
  }

  /** A file took the place of another. */
  afterAdoption(from, to) {
    this.#levels.set(to, Math.max(LOOSE.placed, this.#own(from)));
  }

  /** A command, whether it succeeded or not. @param {readonly string[]} words */
  afterCommand(words) {
    this.#afterCommand(words);
    const isNamed = words.join().includes("data_file_raw=on");
    if (isNamed && words.join().includes("extended_l2=on")) {
      this.#raise(
        words.findLast((word) => word.startsWith("@")),
        LOOSE.unknown,
      );
    }
  }

  #afterCommand(words) {
    if (/(^|,)-[bB],|extended_l2=on/.test(words.join())) this.#zeroesAreLoose = true;
    const images = words.filter((word) => word.startsWith("@"));
    const last = images.at(-1);
    switch (words[0]) {
      case "create":
        this.#levels.delete(last);
        return;
      case "convert": {
        const source = this.of(images.at(-2) ?? last, true);
        // The words tell what units a target has, but for one that is there already.
        const hasOwnUnits = words.includes("-n") || HAS_SMALL_UNITS.test(words.join());
        const isFine = source <= LOOSE.placed && !hasOwnUnits;
        this.#levels.set(last, isFine ? LOOSE.placed : LOOSE.unknown);
        return;
      }
      case "commit":
        for (const layer of BELOW) this.#raise(layer, LOOSE.unknown);
        this.#raise(last, LOOSE.placed);
        return;
      case "rebase":
        this.#raise(last, LOOSE.placed);
        return;
      case "resize":
        if (words.some((word) => word.startsWith("--preallocation")))
          this.#raise(last, LOOSE.placed);
    }
  }

  /** A change of length, one of whose ends cuts a cluster. */
  afterCut(image, hasDataFile) {
    this.#raise(image, hasDataFile ? LOOSE.zeroed : LOOSE.placed);
  }

  #own(image) {
    return this.#levels.get(image) ?? LOOSE.strict;
  }

  #raise(image, level) {
    this.#levels.set(image, Math.max(level, this.#own(image)));
  }
}
