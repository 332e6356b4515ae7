/** The images that the golden command lines are about; made by the real tools in the working directory. */
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { must } from "./qemu.js";

export function makeFixtures(): void {
  must("qemu-img", "create", "-q", "-f", "qcow2", "empty.qcow2", "4M");
  must("qemu-img", "create", "-q", "-f", "qcow2", "data.qcow2", "4M");
  must(
    "qemu-io",
    "-c",
    "write -P 1 0 192k",
    "-c",
    "write -z 256k 64k",
    "-c",
    "write -P 2 1M 64k",
    "data.qcow2",
  );
  must("qemu-img", "create", "-q", "-f", "qcow2", "same.qcow2", "4M");
  must("qemu-io", "-c", "write -P 2 1M 64k", "-c", "write -P 1 0 192k", "same.qcow2");
  must("qemu-img", "convert", "-O", "raw", "data.qcow2", "data.raw");
  must("qemu-img", "convert", "-c", "-O", "qcow2", "data.qcow2", "packed.qcow2");
  must("qemu-img", "create", "-q", "-f", "qcow2", "-b", "data.qcow2", "-F", "qcow2", "top.qcow2");
  must("qemu-io", "-c", "write -P 3 128k 128k", "top.qcow2");
  must(
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-b",
    "top.qcow2",
    "-F",
    "qcow2",
    "third.qcow2",
    "6M",
  );
  must(
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-u",
    "-b",
    "gone.qcow2",
    "-F",
    "qcow2",
    "orphan.qcow2",
    "4M",
  );
  must(
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-b",
    "data.qcow2",
    "-F",
    "qcow2",
    "unnamed.qcow2",
  );
  // The first header extension names the backing file's format: under an unknown number nobody reads it.
  poke("unnamed.qcow2", 112, [0x12, 0x34, 0x56, 0x78]);
  must("qemu-img", "create", "-q", "-f", "qcow2", "larger.qcow2", "5M");
  must("qemu-io", "-c", "write -P 1 0 192k", "-c", "write -P 2 1M 64k", "larger.qcow2");
  must("qemu-img", "create", "-q", "-f", "qcow2", "longer.qcow2", "5M");
  must(
    "qemu-io",
    "-c",
    "write -P 1 0 192k",
    "-c",
    "write -P 2 1M 64k",
    "-c",
    "write -P 7 4608k 512",
    "longer.qcow2",
  );
  must("qemu-img", "create", "-q", "-f", "qcow2", "other.qcow2", "4M");
  must("qemu-io", "-c", "write -P 1 0 100k", "-c", "write -P 9 100k 92k", "other.qcow2");
  must("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "old.qcow2", "4M");
  must(
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-o",
    "lazy_refcounts=on,refcount_bits=1,cluster_size=4k",
    "odd.qcow2",
    "1M",
  );
  must("qemu-img", "create", "-q", "-f", "qcow2", "snap.qcow2", "4M");
  must("qemu-io", "-c", "write -P 1 0 64k", "snap.qcow2");
  must("qemu-img", "snapshot", "-c", "first", "snap.qcow2");
  must("qemu-img", "snapshot", "-c", "a-name-that-is-longer-than-its-column", "snap.qcow2");
  must(
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-o",
    "data_file=apart.data",
    "apart.qcow2",
    "4M",
  );
  must("qemu-io", "-c", "write -P 1 0 64k", "-c", "write -P 2 1M 100k", "apart.qcow2");
  const apart = (name: string, more: string, ...rest: readonly string[]) =>
    must("qemu-img", "create", "-q", "-f", "qcow2", "-o", `data_file=${name}.data${more}`, ...rest);
  apart("wholly", ",data_file_raw=on", "wholly.qcow2", "4M");
  must("qemu-io", "-c", "write -P 1 0 64k", "-c", "write -P 2 1M 100k", "wholly.qcow2");
  apart("over", "", "-b", "data.qcow2", "-F", "qcow2", "over.qcow2");
  must("qemu-io", "-c", "write -P 8 1M 200k", "-c", "write -z 64k 64k", "over.qcow2");
  apart("whole", ",data_file_raw=on", "whole.qcow2", "1M");
  must("qemu-io", "-c", "write -P 8 0 200k", "whole.qcow2");
  must(
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-b",
    "whole.qcow2",
    "-F",
    "qcow2",
    "onto.qcow2",
    "2M",
  );
  must("qemu-io", "-c", "write -P 9 100k 1M", "-c", "write -z 0 64k", "onto.qcow2");
  apart("named", ",data_file_raw=on", "named.qcow2", "1M");
  must("qemu-io", "-c", "write -P 4 0 200k", "named.qcow2");
  copyFileSync("named.data", "moved.data");
  must("qemu-img", "create", "-q", "-f", "qcow2", "bits.qcow2", "4M");
  must("qemu-img", "create", "-q", "-f", "qcow2", "marked.qcow2", "4M");
  must("qemu-img", "bitmap", "--add", "-g", "1k", "marked.qcow2", "theirs");
  must("qemu-img", "bitmap", "--add", "--disable", "marked.qcow2", "idle");
  must("qemu-io", "-c", "write -P 1 100k 300k", "marked.qcow2");
  must("qemu-img", "create", "-q", "-f", "qcow2", "stale.qcow2", "1M");
  must("qemu-img", "bitmap", "--add", "stale.qcow2", "gone");
  must("qemu-img", "bitmap", "--add", "stale.qcow2", "good");
  must("qemu-img", "create", "-q", "-f", "qcow2", "noted.qcow2", "1M");
  must("qemu-img", "bitmap", "--add", "noted.qcow2", "one");
  must("qemu-img", "create", "-q", "-f", "qcow2", "shots.qcow2", "1M");
  must("qemu-io", "-c", "write -P 1 0 192k", "shots.qcow2");
  must("qemu-img", "snapshot", "-c", "2", "shots.qcow2");
  must("qemu-io", "-c", "write -P 2 64k 192k", "shots.qcow2");
  must("qemu-img", "snapshot", "-c", "first", "shots.qcow2");
  must("qemu-img", "snapshot", "-c", "small", "shots.qcow2");
  must("qemu-io", "-c", "write -P 3 128k 64k", "shots.qcow2");
  must("qemu-img", "create", "-q", "-f", "qcow2", "-o", "refcount_bits=1", "narrow.qcow2", "1M");
  must("qemu-io", "-c", "write -P 1 0 64k", "narrow.qcow2");
  must(
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-o",
    "extended_l2=on",
    "-b",
    "data.qcow2",
    "-F",
    "qcow2",
    "parts.qcow2",
  );
  must(
    "qemu-io",
    "-c",
    "write -P 1 10k 3k",
    "-c",
    "write -z 20k 5k",
    "-c",
    "write -P 4 60k 80k",
    "-c",
    "write -c -P 5 512k 64k",
    "parts.qcow2",
  );
  must("qemu-img", "create", "-q", "-f", "raw", "small.raw", "1M");
  writeFileSync("text.txt", "no image\n");
  writeFileSync("nothing.raw", "");
  writeFileSync("uneven.raw", new Uint8Array(100_001).fill(7));
  mkdirSync("folder");
  damage();
}

/** Images that are broken in one way each. */
function damage(): void {
  const copy = (to: string) => must("qemu-img", "convert", "-O", "qcow2", "data.qcow2", to);
  const REFCOUNT_BLOCK = 0x20000; // of every image that qemu-img makes with the defaults
  const FIRST_DATA = 0x50000;
  const damaged = (name: string, at: number, bytes: readonly number[]) => {
    copy(name);
    poke(name, at, bytes);
  };
  // Those that begin with "mend" are repaired, one command line each.
  for (const name of ["leaky", "mend-leaky-1", "mend-leaky-2", "mend-leaky-3"]) {
    damaged(`${name}.qcow2`, REFCOUNT_BLOCK + 2 * 5, [0, 3]);
  }
  for (const name of ["corrupt", "mend-corrupt-1", "mend-corrupt-2"]) {
    damaged(`${name}.qcow2`, REFCOUNT_BLOCK + (FIRST_DATA / 65536) * 2, [0, 0]);
  }
  for (const name of ["both", "mend-both-1"]) {
    damaged(`${name}.qcow2`, REFCOUNT_BLOCK + (FIRST_DATA / 65536) * 2, [0, 0, 0, 1]);
    poke(`${name}.qcow2`, REFCOUNT_BLOCK + 40, [0, 1]);
  }
  damaged("mend-flag.qcow2", 0x40000, [0]);
  damaged("mend-marked.qcow2", 72 + 7, [3]);
  damaged("mend-lost.qcow2", 0x40000 + 8, [0x80, 1]);
  copy("bad-version.qcow2");
  poke("bad-version.qcow2", 4, [0, 0, 0, 9]);
  copy("bad-features.qcow2");
  poke("bad-features.qcow2", 72 + 7, [0x80]);
  copy("bad-cluster.qcow2");
  poke("bad-cluster.qcow2", 20, [0, 0, 0, 40]);
  // The first entry of the bitmap directory is marked as in use.
  const stale = readFileSync("stale.qcow2");
  const extension = stale.indexOf(Uint8Array.of(0x23, 0x85, 0x28, 0x75));
  const directory = Number(stale.readBigUInt64BE(extension + 24));
  poke("stale.qcow2", directory + 15, [3]);
  copy("dirty.qcow2");
  poke("dirty.qcow2", 72 + 7, [1]);
  copy("short.qcow2");
  truncateSync("short.qcow2", 60);
  copy("cut.qcow2");
  truncateSync("cut.qcow2", FIRST_DATA);
}

function poke(path: string, position: number, bytes: readonly number[]): void {
  const file = openSync(path, "r+");
  writeSync(file, Uint8Array.from(bytes), 0, bytes.length, position);
  closeSync(file);
}
