// The disks that the workloads run on, made once and kept in the folder that the caller names.
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeSync,
} from "node:fs";
import { cpSync } from "node:fs";
import { join } from "node:path";

const MIB = 1024 * 1024;

/**
 * A raw disk with an ext4 file system full of the machine's own files.
 *
 * @param {string} folder
 * @param {number} contentMiB - how much to copy from /usr
 * @returns {string} the disk's path
 */
export function makeRealDisk(folder, contentMiB) {
  const disk = join(folder, `real-${contentMiB}.raw`);
  if (existsSync(disk)) return disk;
  mkdirSync(folder, { recursive: true });
  const tree = mkdtempSync(join(folder, "tree-"));
  try {
    let left = contentMiB * MIB;
    for (const source of ["/usr/bin", "/usr/lib", "/usr/share", "/usr/local"]) {
      if (left > 0 && existsSync(source)) left -= copyUpTo(source, join(tree, source), left);
    }
    const sizeMiB = Math.ceil((contentMiB * 1.4) / 64) * 64;
    execFileSync("mke2fs", ["-q", "-t", "ext4", "-d", tree, `${disk}.part`, `${sizeMiB}M`], {
      env: { ...process.env, PATH: `${process.env.PATH}:/sbin:/usr/sbin` },
      stdio: ["ignore", "ignore", "inherit"],
    });
    execFileSync("mv", [`${disk}.part`, disk]);
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
  return disk;
}

/** 1000 MiB of the byte 0xff: what compresses best and is not zero. */
export function makeOnes(folder) {
  const disk = join(folder, "ones.raw");
  if (existsSync(disk)) return disk;
  const file = openSync(`${disk}.part`, "w");
  const mebibyte = Buffer.alloc(MIB, 0xff);
  for (let i = 0; i < 1000; i++) writeSync(file, mebibyte);
  closeSync(file);
  renameSync(`${disk}.part`, disk);
  return disk;
}

/**
 * A qcow2 image with 64 MiB of data, and behind it clusters that are counted and that nothing refers to.
 *
 * @param {string} folder
 * @param {number} leaks - how many
 */
export function makeLeaky(folder, leaks) {
  const disk = join(folder, `leaky-${leaks}.qcow2`);
  if (existsSync(disk)) return disk;
  const part = `${disk}.part`;
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", part, "20G"]);
  execFileSync("qemu-io", ["-f", "qcow2", "-c", "write -P 1 0 64M", part], { stdio: "ignore" });
  const cluster = 65536;
  const perBlock = cluster / 2;
  const file = openSync(part, "r+");
  const number = (at) => {
    const bytes = Buffer.alloc(8);
    readSync(file, bytes, 0, 8, at);
    return Number(bytes.readBigUInt64BE());
  };
  const table = number(48);
  const end = Math.ceil(fstatSync(file).size / cluster);
  // More refcount blocks first, then the leaks that they count.
  const blockCount = Math.floor((end + leaks + 16) / perBlock) + 1;
  const blocks = [number(table)];
  for (let index = 1; index < blockCount; index++) {
    blocks.push((end + index - 1) * cluster);
    const entry = Buffer.alloc(8);
    entry.writeBigUInt64BE(BigInt(blocks[index]));
    writeSync(file, entry, 0, 8, table + index * 8);
  }
  const stop = end + blockCount - 1 + leaks;
  ftruncateSync(file, stop * cluster);
  for (const [index, block] of blocks.entries()) {
    const first = Math.max(end, index * perBlock);
    const last = Math.min(stop, (index + 1) * perBlock);
    if (first >= last) continue;
    const counts = Buffer.alloc((last - first) * 2);
    for (let at = 1; at < counts.length; at += 2) counts[at] = 1;
    writeSync(file, counts, 0, counts.length, block + (first % perBlock) * 2);
  }
  closeSync(file);
  renameSync(part, disk);
  return disk;
}

/** Copies regular files, folder by folder in order of name, until the budget is used; links stay links. */
function copyUpTo(source, target, budget) {
  mkdirSync(target, { recursive: true });
  let used = 0;
  const entries = readdirSync(source, { withFileTypes: true });
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    if (used >= budget) break;
    const [from, to] = [join(source, entry.name), join(target, entry.name)];
    if (entry.isDirectory()) used += copyUpTo(from, to, budget - used);
    else if (entry.isSymbolicLink()) symlinkSync("elsewhere", to);
    else if (entry.isFile()) {
      cpSync(from, to);
      used += statSync(from).size;
    }
  }
  return used;
}
