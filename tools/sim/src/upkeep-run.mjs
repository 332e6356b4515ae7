// Runs lists in which the image is changed as a whole, and tells the model.
//
// 1. Such a change begins when nothing is in flight, so that what the disk holds then is known.
// 2. One that is refused has changed nothing. It may be refused only for a reason that this file knows.
// 3. One that fails with a fault has happened or not: where the image can be asked, that decides; elsewhere the list ends.
import { BlockError } from "@blocklayer/bytes";
import { ReferenceDisk, Trace } from "@blocklayer/sim";
import { GuestRun, Violation } from "./guest-run.mjs";
import { BACKING_NAME } from "./stack.mjs";
import { UpkeepModel } from "./upkeep-model.mjs";
import { UPKEEP_KINDS } from "./upkeep-operations.mjs";

const SECTOR = 512;
const DATE = { dateSeconds: 1_700_000_000, dateNanoseconds: 0 };
/** Wider refcounts have room for every snapshot of a list. */
const NARROW_REFCOUNT_BITS = 4;
/** Larger clusters have room for a header with any of the names. */
const NARROW_CLUSTER_BYTES = 1024;

export class UpkeepRun extends GuestRun {
  /** Requests and changes that were refused, by their kind: a run that does nothing else proves nothing. */
  refused = {};
  /** Changes that were carried out, by their kind. */
  done = {};
  /** The spans of time in which flags may be wrong, as what a change changes. */
  #flags = {
    cancel: (span) => {
      span.end = span.start;
    },
  };

  /**
   * @param {import("./stack.mjs").Stack} stack
   * @param {Trace} [trace]
   */
  constructor(stack, trace = new Trace()) {
    super(stack, trace);
    this.trace = trace;
    const { config } = stack;
    const name = config.backingBytes === undefined ? undefined : BACKING_NAME;
    this.model = new UpkeepModel(config, this.reference, trace, name);
  }

  needsRest({ kind }) {
    return kind === "cycle" || kind === "grow" || UPKEEP_KINDS.has(kind);
  }

  accept(found, { isClean, position = this.reference.now }) {
    if (isClean) this.reference.check(found.bytes);
    this.model.judge(found, position);
  }

  close() {
    return this.#storing(() => super.close(), "close");
  }

  isAllowed(error, operation) {
    if (super.isAllowed(error)) {
      if (error.code !== "ENOTSUP") this.model.marksMayStay = true;
      return true;
    }
    if (!(error instanceof BlockError) || !this.#mayRefuse(error.code, operation)) return false;
    this.refused[operation.kind] = (this.refused[operation.kind] ?? 0) + 1;
    return true;
  }

  /** Why a change may be refused, with nothing changed. */
  #mayRefuse(code, { kind, action, options, preallocation }) {
    const { config } = this.stack;
    const { version, refcountBits } = this.model.header;
    const hasSnapshots = this.model.liveSnapshots.length > 0;
    const hasData = config.dataFile !== undefined;
    switch (kind) {
      case "snapshot":
        if (hasData) return code === "ENOTSUP";
        if (code === "EBUSY") return action === "apply" && this.model.bitmaps.size > 0;
        if (code === "ENOTSUP") return action === "apply" && version.now === 2;
        return code === "EINVAL" && refcountBits.now <= NARROW_REFCOUNT_BITS;
      case "grow":
      case "shrink":
        if (code !== "ENOTSUP") return false;
        // An inconsistent bitmap cannot follow.
        if (this.model.marksMayStay) return true;
        if (hasData && (kind === "shrink" || preallocation !== "off")) return true;
        return version.now === 2 && hasSnapshots;
      case "amend": {
        const { compat, refcount_bits: bits, lazy_refcounts: lazy } = options;
        if (code === "ENOTSUP") return compat === "0.10" && version.now === 3;
        if (code !== "EINVAL") return false;
        const next = compat === undefined ? version.now : compat === "0.10" ? 2 : 3;
        return next === 2 || lazy === true || bits <= NARROW_REFCOUNT_BITS;
      }
      case "rename":
        return code === "ENOSPC" && config.clusterSize <= NARROW_CLUSTER_BYTES;
      case "bitmap":
        if (code === "EINVAL") return this.model.marksMayStay;
        return code === "ENOTSUP" && version.now === 2;
      default:
        return false;
    }
  }

  async start(operation) {
    const { kind } = operation;
    const { model } = this;
    if (kind === "flush" || kind === "read" || kind === "cache") return super.start(operation);
    if (kind === "cycle") return await this.#storing(() => super.start(operation), "cycle");
    if (kind === "grow") return await this.#resize(() => super.start(operation));
    if (!UPKEEP_KINDS.has(kind)) {
      const noted = model.noteRequest(operation.offset, operation.length);
      await super.start(operation);
      // A discard is a hint: of a part of a cluster nothing comes to the image.
      return kind === "discard" ? undefined : noted();
    }
    model.noteChange();
    try {
      await this.#upkeep(operation);
      this.done[kind] = (this.done[kind] ?? 0) + 1;
    } catch (error) {
      this.mayLeak ||= this.armed;
      throw error;
    }
  }

  #upkeep(operation) {
    const { stack, model } = this;
    switch (operation.kind) {
      case "snapshot":
        return this.#snapshot(operation);
      case "shrink":
        return this.#shrink(operation);
      case "amend":
        return this.#amend(operation);
      case "rename":
        return this.#durably(
          "another name of the backing file",
          (start) => [[model.header.backing, model.header.backing.begin(operation.name, start)]],
          () => stack.renameBacking(operation.name),
        );
      case "bitmap":
        return this.#bitmap(operation);
      case "check":
        return this.#check(operation);
      case "handover":
        return this.#storing(() => stack.handOver(), "handover");
      default:
        throw new Violation(`there is no operation '${operation.kind}'`);
    }
  }

  /**
   * A change that is durable when it has ended, and before which everything was made durable.
   *
   * @param {(start: number) => [import("./history.mjs").History<unknown>, object][]} begin - what changes
   * @param {() => Promise<unknown>} work
   * @param {() => Promise<boolean>} [hasHappened] - asked after a fault
   */
  async #durably(label, begin, work, hasHappened) {
    const { model } = this;
    const flush = this.reference.startFlush();
    const entries = begin(model.tick(label));
    const finish = (list) => {
      const end = model.tick(`${label}: done`, true);
      for (const [, entry] of list) entry.end = end;
    };
    const cancel = (list) => {
      for (const [history, entry] of list) history.cancel(entry);
    };
    try {
      await work();
    } catch (error) {
      // After a fault flags wait for a repair, whatever has happened.
      const changes = entries.filter(([history]) => history !== this.#flags);
      if (this.#isRefusal(error)) cancel(entries);
      else if ((await this.#ask(hasHappened)) === true) finish(changes);
      else if (!this.ended) cancel(changes);
      throw error;
    }
    this.reference.finishFlush(flush);
    finish(entries);
  }

  #isRefusal(error) {
    return error instanceof BlockError && !["EIO", "ENOSPC", "ENODEFAILED"].includes(error.code);
  }

  /** After a fault: did it happen? Who cannot know ends the list. */
  async #ask(hasHappened) {
    try {
      if (!this.stack.hasFailed && hasHappened !== undefined) return await hasHappened();
    } catch {
      // The disk goes on failing.
    }
    await this.#end();
    return undefined;
  }

  async #end() {
    this.ended = true;
    this.model.beginStore();
    await this.stack.close().catch(() => undefined);
  }

  /** Runs what stores bitmaps. */
  async #storing(work, what) {
    const { model } = this;
    const entry = model.beginStore();
    try {
      await work();
    } catch (error) {
      const isClosed = what === "cycle" || what === "close";
      if (!isClosed && !this.#isRefusal(error) && !this.ended) await this.#end();
      throw error;
    }
    entry.end = model.tick(`${what}: done`, true);
  }

  async #snapshot({ action, which, tag }) {
    const { snapshots } = this.stack.backend;
    const { model } = this;
    const list = async () => (await snapshots.list()).map(({ name }) => name);
    if (action === "create") {
      const name = `s${tag}`;
      const entry = {
        name,
        bytes: await this.#content(),
        deleteStart: Infinity,
        deleteEnd: Infinity,
      };
      const begin = (start) => {
        const span = model.flagWrong(start);
        Object.assign(entry, { start, end: Infinity });
        model.snapshots.push(entry);
        const cancel = () => {
          model.snapshots = model.snapshots.filter((one) => one !== entry);
        };
        return [
          [{ cancel }, entry],
          [this.#flags, span],
        ];
      };
      const create = () => snapshots.create({ name, ...DATE });
      return this.#durably(`snapshot ${name}`, begin, create, async () =>
        (await list()).includes(name),
      );
    }
    const { liveSnapshots } = model;
    const one = liveSnapshots[which % liveSnapshots.length];
    if (one === undefined) return undefined;
    if (action === "apply") return this.#apply(one);
    const begin = (start) => {
      const span = model.flagWrong(start);
      one.deleteStart = start;
      const deletion = {
        set end(value) {
          one.deleteEnd = value;
        },
      };
      const cancel = () => {
        one.deleteStart = Infinity;
      };
      return [
        [{ cancel }, deletion],
        [this.#flags, span],
      ];
    };
    const isGone = async () => !(await list()).includes(one.name);
    return this.#durably(
      `no snapshot ${one.name}`,
      begin,
      () => snapshots.delete(one.name),
      isGone,
    );
  }

  async #apply(snapshot) {
    const { model, stack } = this;
    const { bytes } = snapshot;
    const lengthBytes = bytes.length;
    const next = new ReferenceDisk({ lengthBytes, content: bytes, trace: this.trace });
    const old = this.reference;
    const begin = (start) => [[model.disks, model.disks.begin(next, start)]];
    const isBack = async () => {
      try {
        old.check(await stack.backend.read(0, stack.backend.lengthBytes));
        return false;
      } catch (error) {
        if (error instanceof BlockError) throw error;
        return true;
      }
    };
    try {
      await this.#durably(
        `back to snapshot ${snapshot.name}`,
        begin,
        () => stack.backend.snapshots.apply(snapshot.name),
        isBack,
      );
    } finally {
      if (model.disks.now !== old) this.follow(model.disks.now);
    }
  }

  async #shrink({ length }) {
    const { model, stack } = this;
    const lengthBytes = Math.max(SECTOR, stack.backend.lengthBytes - length);
    if (lengthBytes === stack.backend.lengthBytes) return;
    const next = this.reference.cut(lengthBytes);
    const entry = model.disks.begin(next, model.tick(`the disk ends at ${lengthBytes}`));
    const finish = () => {
      entry.end = model.tick("the disk is shorter", true);
      this.follow(next);
    };
    await this.#resize(async () => {
      try {
        await stack.backend.truncate(lengthBytes);
      } catch (error) {
        const isShorter = async () => stack.backend.lengthBytes === lengthBytes;
        if (this.#isRefusal(error)) model.disks.cancel(entry);
        else if ((await this.#ask(isShorter)) === true) finish();
        else if (!this.ended) model.disks.cancel(entry);
        throw error;
      }
      finish();
    });
  }

  /** Another length: the bitmaps follow. */
  async #resize(work) {
    const { model, stack } = this;
    model.noteChange(true);
    try {
      await work();
    } finally {
      if (!this.ended) model.resized(stack.backend.lengthBytes);
    }
  }

  async #amend({ options }) {
    const { model, stack } = this;
    const { version, refcountBits, lazyRefcounts } = model.header;
    const { compat, refcount_bits: bits = refcountBits.now } = options;
    const next = compat === undefined ? version.now : compat === "0.10" ? 2 : 3;
    const lazy = next === 3 && (options.lazy_refcounts ?? lazyRefcounts.now);
    const changes = [
      [version, next],
      [refcountBits, bits],
      [lazyRefcounts, lazy],
    ];
    const begin = (start) => {
      const entries = changes.map(([history, value]) => [history, history.begin(value, start)]);
      // Bitmaps are stored before anything is changed, and noted on then: also when the rest is refused.
      const stored = model.beginStore();
      model.noteChange();
      return [...entries, [{ cancel: () => undefined }, stored]];
    };
    await this.#durably("other options", begin, () => stack.amend(options));
  }

  async #check({ fix }) {
    const result = await this.stack.backend.check(fix === undefined ? {} : { fix });
    const { corruptions, checkErrors, leaks, findings } = result;
    const text = findings.map(({ message }) => message).join("\n");
    // A check that cannot read says so, and does not fail.
    if (this.armed && checkErrors > 0 && text.includes("injected failure")) return;
    const wrong = findings.filter(({ severity }) => severity === "corruption");
    const areFlags = wrong.every(({ message }) => message.startsWith("ERROR OFLAG_COPIED"));
    // A change that failed may have left them.
    const mayStay = this.armed && fix !== "all" && areFlags && checkErrors === 0;
    if (corruptions + checkErrors > 0 && !mayStay) {
      throw new Violation(`a check in operation finds:\n${text}`);
    }
    if (leaks > 0 && (fix !== undefined || !this.armed)) {
      throw new Violation(`${leaks} clusters leak:\n${text}`);
    }
  }

  /** What the disk holds now. Requires: nothing is in flight. */
  async #content() {
    const { reference, stack } = this;
    const start = reference.now;
    const bytes = await stack.backend.read(0, stack.backend.lengthBytes);
    reference.checkRead(0, bytes, start);
    return bytes;
  }

  async #bitmap(operation) {
    const { action, which, from, tag, granularityBytes, recording } = operation;
    const { bitmaps } = this.stack.backend;
    const { model } = this;
    if (action === "store") return await this.#storing(() => bitmaps.store(), "store");
    if (action === "add") {
      const baseline = await this.#content();
      await bitmaps.add(`b${tag}`, { granularityBytes, recording });
      const clean = () => new Uint8Array(baseline.length / SECTOR);
      model.bitmaps.set(`b${tag}`, {
        granularityBytes,
        recording,
        must: clean(),
        exempt: clean(),
        baseline,
        inUseFrom: Infinity,
      });
      return undefined;
    }
    const names = [...model.bitmaps.keys()];
    if (names.length === 0) return undefined;
    const name = names[which % names.length];
    const bitmap = model.bitmaps.get(name);
    await this.#compareBitmap(name, bitmap);
    switch (action) {
      case "remove":
        await bitmaps.remove(name);
        return void model.bitmaps.delete(name);
      case "clear": {
        const baseline = await this.#content();
        await bitmaps.clear(name);
        bitmap.must.fill(0);
        bitmap.exempt.fill(0);
        return void Object.assign(bitmap, { baseline });
      }
      case "merge": {
        const source = names[from % names.length];
        await bitmaps.mark(name, await bitmaps.dirtyRanges(source, 0, Infinity));
        model.bitmaps.get(source).must.forEach((bit, sector) => {
          bitmap.must[sector] |= bit;
        });
        return undefined;
      }
      default: {
        const isOn = action === "enable";
        // The mark comes before what it is for.
        const before = bitmap.recording;
        bitmap.recording ||= isOn;
        model.noteChange();
        bitmap.recording = before;
        await bitmaps.setRecording(name, isOn);
        bitmap.recording = isOn;
        return undefined;
      }
    }
  }

  /** In operation, too, a bitmap is never short of a write. */
  async #compareBitmap(name, { must }) {
    const { bitmaps } = this.stack.backend;
    const dirty = dirtySectors(await bitmaps.dirtyRanges(name, 0, Infinity), must.length);
    const short = must.findIndex((bit, sector) => bit === 1 && dirty[sector] === 0);
    if (short >= 0) throw new Violation(`bitmap '${name}' is short of sector ${short}`);
  }
}

/** Ranges of a bitmap, by sector. */
export function dirtySectors(ranges, count) {
  const dirty = new Uint8Array(count);
  for (const { offset, lengthBytes } of ranges) {
    dirty.fill(1, Math.floor(offset / SECTOR), Math.ceil((offset + lengthBytes) / SECTOR));
  }
  return dirty;
}
