// One seed of `service-crashes`: a job over whole images is recorded, and every state that a power failure leaves of all
// its disks is looked at.
//
// - commit: the overlay shows the same disk over its base, wherever it is cut off. When it has ended, the base alone shows it.
// - rebase: the image shows the same disk on the base that its header names.
// - create: there is no image yet, or the whole of it.
import { directChild, parseOptions } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { commitImage, rebaseImage } from "@blocklayer/image";
import {
  checkQcow2,
  createOptions,
  createQcow2,
  openQcow2,
  qcow2DriverWith,
  readHeader,
} from "@blocklayer/qcow2";
import { crashStates, SimDisk, stampedBytes, Trace } from "@blocklayer/sim";
import { simCodec } from "./codec.mjs";
import { Violation } from "./guest-run.mjs";
import { asViolation, contentOf, findingsText } from "./inspect.mjs";
import { IMAGE_NAMES } from "./service-plan.mjs";
import { firstDifference } from "./upkeep-model.mjs";

const MAX_SUBSETS = 4;
const MAGIC = 0x5146_49fb;
const DIRTY_BIT = 1n;

/**
 * Runs the job of a configuration, on images that the list has filled.
 *
 * @param {import("./service-plan.mjs").ServiceConfig} config
 * @param {readonly import("./service-plan.mjs").ServiceOperation[]} operations
 * @param {import("./crash-run.mjs").CrashHooks} [hooks]
 * @returns {Promise<import("./job.mjs").Totals>}
 * @throws Violation
 */
export async function runService(
  config,
  operations,
  { maxStates = Number.POSITIVE_INFINITY } = {},
) {
  const job = await JOBS[config.service](config, operations);
  let states = 0;
  for (const state of crashStates(job.trace, {
    seed: config.seed,
    maxSubsets: MAX_SUBSETS,
    tear: true,
  })) {
    if (states >= maxStates) break;
    states++;
    try {
      await job.judge(state);
    } catch (error) {
      throw asViolation(`${config.service}: ${state.describe()}`, error);
    }
  }
  return { states };
}

const JOBS = { commit, rebase, create };

async function commit(config, operations) {
  const [top, base] = await filledImages(config, operations);
  const expected = await shownBy(top, base);
  const trace = new Trace();
  const disks = [top, base].map((content) => new SimDisk({ content, trace }));
  await commitImage(IMAGE_NAMES[0], { drivers: driversOf(disks), format: "qcow2" });
  const done = trace.mark("committed");
  return {
    trace,
    judge: async (state) => {
      const [above, below] = [0, 1].map((disk) => state.bytesOf(disk));
      await mustBeSound(above);
      await mustBeSound(below);
      mustBe(await shownBy(above, below), expected, "the overlay");
      if (state.position < done) return;
      const alone = await shownBy(below);
      mustBe(alone.subarray(0, expected.length), expected, "the base alone, after the end,");
    },
  };
}

async function rebase(config, operations) {
  const [top, ...bases] = await filledImages(config, operations);
  const expected = await shownBy(top, bases[0]);
  const trace = new Trace();
  const disks = [new SimDisk({ content: top, trace })];
  for (const content of bases) disks.push(new SimDisk({ content, readOnly: true }));
  await rebaseImage(IMAGE_NAMES[0], {
    drivers: driversOf(disks),
    format: "qcow2",
    backing: { filename: IMAGE_NAMES[2], format: "qcow2" },
  });
  const done = trace.mark("rebased");
  return {
    trace,
    judge: async (state) => {
      await mustBeSound(state.bytes);
      const { backingFilename } = await readHeader(directChild(state.open()));
      const index = IMAGE_NAMES.indexOf(backingFilename);
      if (index < 1 || (state.position >= done && index !== 2)) {
        throw new Violation(`the base is '${backingFilename}'`);
      }
      mustBe(await shownBy(state.bytes, bases[index - 1]), expected, `the image on base ${index}`);
    },
  };
}

async function create({ images: [options] }) {
  const trace = new Trace();
  const file = directChild(new SimDisk({ trace }));
  const hasData = options.data_file !== undefined;
  const dataFile = hasData ? { dataFile: directChild(new SimDisk({ trace })) } : {};
  await createQcow2({ file, ...dataFile, options: parseOptions(createOptions, options, "qcow2") });
  const done = trace.mark("created");
  return {
    trace,
    judge: async (state) => {
      const { bytes } = state;
      const isImage = bytes.length >= 4 && new DataView(bytes.buffer).getUint32(0) === MAGIC;
      if (!isImage) {
        if (state.position >= done) throw new Violation("the image is not there");
        return;
      }
      const { leaks, allocatedClusters, totalClusters } = await mustBeSound(bytes);
      const { incompatible } = await readHeader(directChild(state.open()));
      if ((incompatible & DIRTY_BIT) !== 0n) throw new Violation("a new image is dirty");
      if (leaks > 0) throw new Violation(`${leaks} clusters of a new image leak`);
      const isPlaced = !["off", undefined].includes(options.preallocation);
      if (isPlaced && allocatedClusters !== totalClusters) {
        throw new Violation(`${allocatedClusters} of ${totalClusters} clusters have a place`);
      }
      const data = hasData ? state.bytesOf(1) : undefined;
      if (hasData && data.length < options.size) throw new Violation("the data file is too short");
      const shown = await shownBy(bytes, undefined, data);
      mustBe(shown, new Uint8Array(options.size), "the new disk");
    },
  };
}

/** Images with their content, all of it durable. */
async function filledImages({ images }, operations) {
  const disks = [];
  for (const [index, options] of images.entries()) {
    const disk = new SimDisk({ volatileCache: false });
    const file = directChild(disk);
    await createQcow2({ file, options: parseOptions(createOptions, options, "qcow2") });
    const image = await openQcow2({ file, createCodec: simCodec() });
    for (const one of operations) if (one.image === index) await fill(image, one);
    await image.close();
    disks.push(disk.bytes);
  }
  return disks;
}

/** Without its base: what a request leaves of a cluster is zeroes. */
async function fill(image, { kind, offset, length: wanted, tag }) {
  const length = Math.min(wanted, image.lengthBytes - offset);
  if (length <= 0) return;
  if (kind === "zeroes") return void (await image.writeZeroes(offset, length, { mayUnmap: true }));
  if (kind === "discard") return void (await image.discard(offset, length));
  const bytes = IoVector.of(stampedBytes(tag, offset, length));
  await image.writev(offset, bytes, { compressed: kind === "compressed" });
}

/** A protocol driver that finds the disks by the names of their images; a disk that is closed can be opened again. */
function driversOf(disks) {
  const file = {
    name: "file",
    kind: "protocol",
    openOptions: { filename: { type: "string", help: "Name of the file" } },
    open: ({ options }) => {
      const disk = disks[IMAGE_NAMES.indexOf(options.filename)];
      disk.restart();
      return disk;
    },
  };
  return [file, qcow2DriverWith(simCodec())];
}

/** What an image shows. */
async function shownBy(content, below, data) {
  const childOf = (bytes) => directChild(new SimDisk({ content: bytes, volatileCache: false }));
  const open = (bytes, rest) =>
    openQcow2({ file: childOf(bytes), readOnly: true, createCodec: simCodec(), ...rest });
  const base = below === undefined ? undefined : await open(below, {});
  const image = await open(content, {
    ...(base === undefined ? {} : { backing: directChild(base) }),
    ...(data === undefined ? {} : { dataFile: childOf(data) }),
  });
  const bytes = await contentOf(image);
  await image.close();
  await base?.close();
  return bytes;
}

/** Leaks at most; refcounts may be put off where the image says so. */
async function mustBeSound(content) {
  const file = directChild(new SimDisk({ content, volatileCache: false }));
  const header = await readHeader(file);
  const result = await checkQcow2(file, header);
  const { corruptions, checkErrors, findings } = result;
  if (corruptions + checkErrors === 0) return result;
  if ((header.incompatible & DIRTY_BIT) === 0n) {
    throw new Violation(`the check finds ${corruptions} corruptions:\n${findingsText(findings)}`);
  }
  const before = await shownBy(content);
  const image = await openQcow2({ file, createCodec: simCodec() });
  const now = await contentOf(image);
  await image.close();
  mustBe(now, before, "a repaired image");
  return await checkQcow2(file, await readHeader(file));
}

function mustBe(found, expected, what) {
  const wrong = firstDifference(found, expected);
  if (wrong >= 0) throw new Violation(`${what} shows other bytes from ${wrong} on`);
}
