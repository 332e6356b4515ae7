// Jobs over whole images: committing an overlay into its base, another base below an overlay, and making an image.
import { Random } from "@blocklayer/sim";

/**
 * @typedef {object} ServiceConfig
 * @property {number} seed
 * @property {"commit" | "rebase" | "create"} service
 * @property {Record<string, unknown>[]} images - creation options: the image; of `commit` also that below it, of `rebase`
 *   also the old and the new base
 *
 * @typedef {object} ServiceOperation - what an image is filled with before the job begins
 * @property {number} image - which one
 * @property {"write" | "compressed" | "zeroes" | "discard" | "snapshot"} kind
 * @property {number} offset - in bytes; what does not fit is cut
 * @property {number} length
 * @property {number} tag
 */

const SERVICES = ["commit", "commit", "rebase", "rebase", "create"];
const CLUSTER_SIZES = [512, 512, 1024, 2048, 4096];
const EXTENDED_CLUSTER_BYTES = 16 * 1024;
const DISK_BYTES = 24 * 1024;
const EXTENDED_DISK_BYTES = 80 * 1024;
const OPERATIONS = 10;
/** Of the image, and of those below it. */
export const IMAGE_NAMES = ["/top.qcow2", "/base.qcow2", "/other.qcow2"];

/** What a seed stands for. */
export function servicePlanOf(seed) {
  const random = new Random(seed * 16 + 13);
  const service = random.pick(SERVICES);
  const count = { commit: 2, rebase: 3, create: 1 }[service];
  const images = Array.from({ length: count }, (_, i) => imageOptions(random, service, i));
  const operations = Array.from({ length: service === "create" ? 0 : OPERATIONS }, (_, i) =>
    operationOf(random, images, i + 1),
  );
  return { config: { seed, service, images }, operations };
}

function imageOptions(random, service, index) {
  const isOld = random.oneIn(5);
  const isExtended = !isOld && random.oneIn(6);
  const cluster = isExtended ? EXTENDED_CLUSTER_BYTES : random.pick(CLUSTER_SIZES);
  const most = isExtended ? EXTENDED_DISK_BYTES : DISK_BYTES;
  const withData = !isOld && service === "create" && random.oneIn(5);
  const isLazy = !isOld && random.oneIn(4);
  return {
    size: 512 * random.between(1, most / 512),
    cluster_size: cluster,
    compat: isOld ? "0.10" : "1.1",
    ...(isOld ? {} : { refcount_bits: random.pick([1, 8, 16, 64, 64]) }),
    ...(isExtended ? { extended_l2: true } : {}),
    ...(isLazy ? { lazy_refcounts: true } : {}),
    ...(service === "create" ? createOptions(random, withData) : {}),
    ...(service !== "create" && index === 0
      ? { backing_file: IMAGE_NAMES[1], backing_fmt: "qcow2" }
      : {}),
  };
}

function createOptions(random, withData) {
  if (withData) return { data_file: "data.raw", data_file_raw: random.oneIn(2) };
  return { preallocation: random.pick(["off", "metadata", "falloc", "full"]) };
}

function operationOf(random, images, tag) {
  const image = random.below(images.length);
  const { size, cluster_size: cluster } = images[image];
  const kind = random.pick(["write", "write", "write", "compressed", "zeroes", "discard"]);
  const unit = kind === "write" && random.oneIn(2) ? 512 : cluster;
  const offset = unit * random.below(Math.ceil(size / unit));
  return { image, kind, offset, length: unit * random.between(1, 4), tag };
}
