/** Where `blk io` differs from qemu-io on purpose: the reason, and what it says instead. */

export interface IoDifference {
  readonly why: string;
  readonly status?: number;
  readonly stdout?: RegExp;
  readonly stderr?: RegExp;
  /** What is on the disk afterwards differs as well. */
  readonly disk?: true;
}

export const COMPRESSED_OVER: IoDifference = {
  why: "a compressed write replaces what is there, where qemu-io refuses with EIO",
  status: 0,
  stdout: /^wrote 65536\/65536 .*\nwrote 65536\/65536 .*\n$/s,
  disk: true,
};
export const VM_STATE: IoDifference = {
  why: "QEMU puts VM state behind the disk in the external data file, which shows the disk and nothing else",
  status: 1,
  stdout: /^write failed: Operation not supported\n$/,
};
export const NAMED_ONCE: IoDifference = {
  why: "qemu-io prints the name of a filter twice",
  stdout: /^format name: blkdebug\ncluster size: 64 KiB\nvm state offset: 512 MiB\n$/,
};
export const DRIVER: IoDifference = {
  why: "the message lists what there is",
  stderr: /^blk: can't open.*: driver 'foo' is unknown; known are: .*qcow2/,
};
export const REOPEN_OPTION: IoDifference = {
  why: "blk's own words",
  stderr: /option 'foo' cannot change while the node is open\n$/,
};
export const CONFIG: IoDifference = {
  why: "the message names the file",
  stderr: /could not read 'gone.conf': No such file or directory\n$/,
};
export const BLKDEBUG_NAME: IoDifference = {
  why: "the message says what the name should be",
  stderr: /blkdebug wants blkdebug:\[config\]:image\n$/,
};
export const OPEN_USAGE: IoDifference = {
  why: "the help names no option that is refused",
  stdout: /^(open \[-rsnU\] .*\n){2}$/,
};
export const EXACT: IoDifference = {
  why: "a raw file has as many bytes as it has: blk does not round up to sectors",
  stdout: /^19\d\.\d+ KiB\n$/,
};
export const REMOVED: IoDifference = {
  why: "qemu-io lets the parked request go as well, and calls it a failure",
  status: 0,
  stdout: /^blkdebug: Suspended request 'A'\nblkdebug: Resuming request 'A'\nwrote .*\n$/s,
};
export const BLKDEBUG_RULE: IoDifference = {
  why: "the message names the rule, its word, and what is wrong with it",
  stderr: /blkdebug: .+\n$/,
};
export const LIMIT: IoDifference = {
  why: "blk's own words",
  stderr: /blkdebug: cannot meet constraints with [\w-]+ \d+\n$/,
};
export const NO_NEW_STATE: IoDifference = {
  why: "a state without a number to change to is a mistake: QEMU's schema demands new_state, and qemu-io takes 0",
  stderr: /blkdebug: set-state.0: 'new_state' is missing\n$/,
  stdout: /^$/,
  disk: true,
};
