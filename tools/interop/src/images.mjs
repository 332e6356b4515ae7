// The images of the matrix: geometries of qcow2, and chains that QEMU's own tools make.
import { join } from "node:path";
import { diskContent, writeSparse } from "./content.mjs";
import { guestOps, qemuIoCommand } from "./guest-ops.mjs";
import { qemuImg, qemuIo, tryProgram } from "./programs.mjs";

const MIB = 2 ** 20;

/**
 * @typedef {object} Geometry
 * @property {string} name
 * @property {string} options - for `-o`
 * @property {number} clusterBytes
 * @property {"0.10" | "1.1"} compat
 * @property {number} refcountBits
 * @property {number} lengthBytes - of the disks made with it: of odd length, so that the last cluster is a partial one
 */

/** @type {readonly Geometry[]} */
export const GEOMETRIES = [
  { size: "512", clusterBytes: 512, mib: 8 },
  { size: "4k", clusterBytes: 4096, mib: 8 },
  { size: "64k", clusterBytes: 65_536, mib: 8 },
  { size: "2M", clusterBytes: 2 * MIB, mib: 12 },
].flatMap(({ size, clusterBytes, mib }) =>
  [
    { compat: "0.10", refcountBits: 16 },
    ...[1, 16, 64].map((refcountBits) => ({ compat: "1.1", refcountBits })),
  ].map(({ compat, refcountBits }) => {
    const options = `cluster_size=${size},compat=${compat},refcount_bits=${refcountBits}`;
    const lengthBytes = mib * MIB + 3 * 512;
    return { name: options, options, clusterBytes, compat, refcountBits, lengthBytes };
  }),
);

/** What lies below the image. */
export const BACKINGS = [
  "no backing",
  "raw backing",
  "qcow2 backing",
  "overlay over overlay",
  "shorter backing",
  "longer backing",
];

/**
 * @typedef {object} Chain
 * @property {string} image - the top image, a qcow2 one
 * @property {string | undefined} backing - the file below it
 * @property {string | undefined} backingFormat
 * @property {string[]} layers - every qcow2 image of the chain
 */

/** Data is sparse where clusters are big, so that a case costs about the same with all of them. */
function contentOf(geometry, lengthBytes, seed) {
  return diskContent(lengthBytes, Math.min(Math.max(geometry.clusterBytes * 3, 65_536), MIB), seed);
}

/**
 * Makes a chain with qemu-img and qemu-io.
 *
 * @param {string} folder
 * @param {Geometry} geometry
 * @param {string} kind - one of BACKINGS
 * @param {boolean} compressed - parts of it are
 * @returns {Promise<Chain>}
 */
export async function makeChain(folder, geometry, kind, compressed) {
  const { options, lengthBytes } = geometry;
  const image = join(folder, "top.qcow2");
  const create = ["create", "-q", "-f", "qcow2", "-o", options];
  const below = await makeBacking(folder, geometry, kind, compressed);
  if (below === undefined) {
    const raw = join(folder, "content.raw");
    writeSparse(raw, contentOf(geometry, lengthBytes, 1));
    const flags = compressed ? ["-c"] : [];
    await qemuImg("convert", ...flags, "-O", "qcow2", "-o", options, raw, image);
    await write(geometry, image, 2, false);
    return { image, backing: undefined, backingFormat: undefined, layers: [image] };
  }
  const { path, format, layers } = below;
  await qemuImg(...create, "-b", path, "-F", format, image, String(lengthBytes));
  await write(geometry, image, 3, compressed);
  return { image, backing: path, backingFormat: format, layers: [image, ...layers] };
}

async function makeBacking(folder, geometry, kind, compressed) {
  const { options, lengthBytes } = geometry;
  const at = (name) => join(folder, name);
  const rawDisk = (bytes, seed) => {
    writeSparse(at("base.raw"), contentOf(geometry, bytes, seed));
    return { path: at("base.raw"), format: "raw", layers: [] };
  };
  switch (kind) {
    case "no backing":
      return undefined;
    case "raw backing":
      return rawDisk(lengthBytes, 4);
    case "shorter backing":
      return rawDisk(Math.floor(lengthBytes / 1024 / 2) * 512 + 512, 5);
    case "longer backing":
      return rawDisk(lengthBytes + 3 * 65_536 + 512, 6);
    case "qcow2 backing": {
      const flags = compressed ? ["-c"] : [];
      const raw = rawDisk(lengthBytes, 7).path;
      const path = at("base.qcow2");
      await qemuImg("convert", ...flags, "-O", "qcow2", "-o", options, raw, path);
      return { path, format: "qcow2", layers: [path] };
    }
    case "overlay over overlay": {
      const base = rawDisk(Math.floor(lengthBytes / 1024) * 512, 8).path;
      const path = at("middle.qcow2");
      const words = ["-b", base, "-F", "raw", path, String(lengthBytes)];
      await qemuImg("create", "-q", "-f", "qcow2", "-o", options, ...words);
      await write(geometry, path, 9, compressed);
      return { path, format: "qcow2", layers: [path] };
    }
    default:
      throw new Error(`no such backing: ${kind}`);
  }
}

/** A guest at work, with qemu-io as its disk. */
async function write({ lengthBytes, clusterBytes }, image, seed, compressed) {
  const forQemu = true;
  const ops = guestOps({ seed, count: 30, lengthBytes, clusterBytes, compressed, forQemu });
  await qemuIo(image, ops.map(qemuIoCommand));
}

/** `undefined` when two files have the same bytes; else where they part. */
export async function differenceOf(pathA, pathB) {
  const { status, stdout, stderr } = await tryProgram("cmp", [pathA, pathB]);
  return status === 0 ? undefined : `${stdout}${stderr}`;
}
