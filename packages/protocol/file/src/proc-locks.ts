/**
 * Seeing other processes' locks without the means to take one: Linux lists all of them in /proc/locks.
 *
 * A line is `12: OFDLCK ADVISORY  READ -1 fe:00:2146517 100 101`: kind, mode, type, process, device and inode,
 * first and last byte (`EOF` for no end). Lines that begin their kind with `->` wait for a lock and hold none.
 *
 * The device there is the file system's own, which `stat` does not always give (btrfs, overlayfs). The mount
 * that the descriptor came through names it.
 */
import { readFile } from "node:fs/promises";

/** A range of locked bytes; the last one included. */
export interface LockedRange {
  readonly first: number;
  readonly last: number;
}

/** `major:minor` in decimal, and the inode. */
export interface LockedFile {
  readonly device: string;
  readonly inode: string;
}

/**
 * The byte ranges that anybody has locked in a file.
 *
 * @param text - the content of /proc/locks
 */
export function parseProcLocks(text: string, file: LockedFile): readonly LockedRange[] {
  const ranges: LockedRange[] = [];
  for (const line of text.split("\n")) {
    const fields = line.trim().split(/\s+/);
    const [, kind, , , , site, first, last] = fields;
    if (kind !== "OFDLCK" && kind !== "POSIX") continue;
    if (site === undefined || first === undefined || last === undefined) continue;
    if (!sameFile(site, file)) continue;
    ranges.push({
      first: Number(first),
      last: last === "EOF" ? Number.POSITIVE_INFINITY : Number(last),
    });
  }
  return ranges;
}

function sameFile(site: string, file: LockedFile): boolean {
  const [major, minor, inode] = site.split(":");
  if (major === undefined || minor === undefined || inode !== file.inode) return false;
  return `${Number.parseInt(major, 16)}:${Number.parseInt(minor, 16)}` === file.device;
}

/**
 * The device of a descriptor's file system: of its mount, or `fallback` where that cannot be learned.
 *
 * @param fdinfo - the content of /proc/self/fdinfo/<fd>
 * @param mountinfo - the content of /proc/self/mountinfo
 */
export function mountDevice(fdinfo: string, mountinfo: string): string | undefined {
  const mount = /^mnt_id:\s*(\d+)$/m.exec(fdinfo)?.[1];
  if (mount === undefined) return undefined;
  for (const line of mountinfo.split("\n")) {
    const [id, , device] = line.split(" ");
    if (id === mount) return device;
  }
  return undefined;
}

/**
 * The locks on an open file.
 *
 * @param fd - an open descriptor of it
 * @param fallbackDevice - `major:minor` as `stat` gives it
 * @returns `undefined` where the system does not list locks
 */
export async function readProcLocks(
  fd: number,
  fallbackDevice: string,
  inode: string,
): Promise<readonly LockedRange[] | undefined> {
  const locks = await textOf("/proc/locks");
  if (locks === undefined) return undefined;
  const fdinfo = await textOf(`/proc/self/fdinfo/${fd}`);
  const mountinfo = await textOf("/proc/self/mountinfo");
  const device =
    fdinfo === undefined || mountinfo === undefined ? undefined : mountDevice(fdinfo, mountinfo);
  return parseProcLocks(locks, { device: device ?? fallbackDevice, inode });
}

async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "latin1");
  } catch {
    return undefined;
  }
}
