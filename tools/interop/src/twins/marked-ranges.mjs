// What bitmaps must have noted: the ranges that a guest's requests changed since each began.
//
// QEMU notes requests that changed nothing, too: a discard of less than a cluster, a write that failed. blk does not. So QEMU's
// bitmap may say more, but only where nothing was changed; and blk's may say nothing that QEMU's does not.

export class MarkedRanges {
  /** @type {Map<string, {start: number, end: number}[]>} by `image bitmap` */
  #ranges = new Map();

  /** A request that succeeded. @param {import("../guest-ops.mjs").GuestOp} op */
  add(image, { kind, offset, length }) {
    if (kind === "flush") return;
    // How much of a discard counts depends on the cluster: its middle does for certain when it is long.
    if (kind === "discard") return;
    for (const [key, ranges] of this.#ranges) {
      if (key.startsWith(`${image} `)) ranges.push({ start: offset, end: offset + length });
    }
  }

  /** A `bitmap` command that succeeded. */
  follow(words) {
    const [image, name] = words.slice(-2);
    const key = `${image} ${name}`;
    const isRecording = words.includes("--enable") || !words.includes("--disable");
    if (words.includes("--add") || words.includes("--clear")) this.#ranges.set(key, []);
    if (words.includes("--remove") || !isRecording) this.#ranges.delete(key);
    else if (words.includes("--enable") && !this.#ranges.has(key)) this.#ranges.set(key, []);
    const source = words[words.indexOf("--merge") + 1];
    if (words.includes("--merge"))
      this.#ranges.get(key)?.push(...(this.#ranges.get(`${image} ${source}`) ?? []));
  }

  /** The disk ends here now: what lay behind is no longer noted, should it come back. */
  cut(image, end) {
    for (const [key, ranges] of this.#ranges) {
      if (!key.startsWith(`${image} `)) continue;
      const left = ranges.filter(({ start }) => start < end);
      this.#ranges.set(
        key,
        left.map((range) => ({ start: range.start, end: Math.min(range.end, end) })),
      );
    }
  }

  /** Another file took the image's place. */
  forget(image) {
    for (const key of this.#ranges.keys())
      if (key.startsWith(`${image} `)) this.#ranges.delete(key);
  }

  /** Whether anything in a range was changed since the bitmap began. */
  has(image, name, start, end) {
    const ranges = this.#ranges.get(`${image} ${name}`) ?? [];
    return ranges.some((range) => range.start < end && range.end > start);
  }
}
