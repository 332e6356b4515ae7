/** Where blk differs from qemu-img on purpose: the reason, and what it says instead. */
import type { Difference } from "./golden-case.js";

export const ORDER: Difference = {
  why: "blk looks at the words one after the other, and stops at another one first",
  stderr: /^blk: .+\n/,
};
export const NO_VALUE: Difference = {
  why: "the option is known; it is its value that is too much",
  stderr: /option '--backing-chain' does not take an argument/,
};
export const LIMIT: Difference = {
  why: "a size that JavaScript cannot count exactly is refused",
  stderr: /'9E' is more than 8 PiB - 1/,
};
export const TARGET_OPTS: Difference = {
  why: "the message names the options that the user wrote",
  stderr: /-O cannot be used with --target-image-opts/,
};
export const DRIVER: Difference = {
  why: "the message lists what there is",
  stderr: /driver 'frob' is unknown; known are: .*qcow2/,
};
export const OPTION: Difference = {
  why: "the message lists what there is",
  stderr: /option 'frob' is unknown; known are: /,
};
export const BEFORE: Difference = {
  why: "said before anything is opened, so that there is no target to name",
  stderr: /^blk: Backing format cannot be used without backing file\n/,
};
export const DASH_F: Difference = {
  why: "the message names the option that helps",
  stderr: /Use of backing file requires explicit backing format \(-F\)/,
};
export const LATER: Difference = {
  why: "not in this version, and refused by name",
  status: 1,
  stderr: /not supported/,
};
export const GUESS: Difference = {
  why: "the bytes of a guest's disk do not decide what is opened, and the message tells what to do",
  stderr: /names the backing file|without backing format\n/,
};
export const GUESS_FAILS: Difference = {
  why: "the bytes of a guest's disk do not decide what is opened, and the message tells what to do",
  status: 1,
  stderr: /guessing it is unsafe\. .+ -F <format>/,
  stdout: /^$/,
};
export const BACKING_FORMAT: Difference = {
  why: "the message tells which of the two formats it is",
  stderr: /Unknown backing file format 'frob'/,
};
export const NOTHING_FORMATTED: Difference = {
  why: "checked before `Formatting` is printed",
  stdout: /^$/,
};
export const CHOICES: Difference = {
  why: "the message lists what there is, by the name that the user wrote, before `Formatting` is printed",
  stderr: /option '\w+' must be .+, not '\w+'/,
  stdout: /^$/,
};
export const FOLDER: Difference = {
  why: "the message says what is needed",
  stderr: /'folder': it is a directory, and driver 'file' needs a regular file/,
};
export const PROTOCOL: Difference = {
  why: "the message tells how to name a path with a colon",
  stderr: /protocol 'frob' is unknown; for a path with a colon write/,
};
export const HELP: Difference = {
  why: "the texts are blocklayer's own, and tell what is not supported",
  stdout: /^Supported \w+ options:\n.*size=<size>/s,
};
export const EXACT: Difference = {
  why: "a raw file has as many bytes as it has: blk does not round up to sectors",
  stdout: /\b9\b/,
};
export const CHAIN: Difference = {
  why: "the message names the image that names the missing file, too",
  stderr: /'orphan.qcow2': Could not open 'gone.qcow2': No such file/,
};
export const WORDS: Difference = {
  why: "blk's own words",
  stderr: /^blk: Could not open .+: .+\n$/,
};
export const FILE_FORMAT: Difference = {
  why: "a protocol is no format: such a file would be raw, which has a name",
  status: 1,
  stderr: /does not support image creation/,
  stdout: /^$/,
};
export const ALONE: Difference = {
  why: "a check is of one image, and works where its chain is broken",
  status: 0,
  stderr: /^$/,
  stdout: /No errors|check-errors/,
};
export const NO_EXTENT: Difference = {
  why: "an extent of no bytes is none",
  stdout: /^\[\]\n$/,
};
export const PAST_END: Difference = {
  why: "what lies past the end of the file reads as zeroes, and blk says so",
  stdout: /Offset|"zero": true, "data": true/,
};
export const STEPS: Difference = {
  why: "how often progress is shown depends on how fast it goes",
  stdout: /^ {4}\(0\.00\/100%\)\r.*\(100\.00\/100%\)\r(Images are identical\.\n)?\n$/s,
};

export const MAKING: Difference = {
  why: "found out while the target is made, and said so",
  stderr: /^blk: x\.\w+: error while converting \w+: /,
};

export const NO_COMPRESSION: Difference = {
  why: "known before a byte is copied, and said so",
  stderr: /convert: format 'qcow2' has no compression/,
};

export const FORCE_SHARE: Difference = {
  why: "blk's own words",
  stderr: /^blk: Could not open 'shots\.qcow2': force-share is for read-only images only\n$/,
};
export const NO_WARNING: Difference = {
  why: "blk does not warn of a raw image that it does not write to",
  stderr: /^blk: Could not (create|apply|delete) snapshot 'x': [^\n]+\n$/,
};
export const NO_SNAPSHOTS: Difference = {
  why: "the message names the format",
  stderr:
    /^blk: Failed to load snapshot: format '(raw|blkdebug)' cannot show an internal snapshot\n$/,
};
export const NAMED_BY_FILE: Difference = {
  why: "an image below other nodes is named by its file, and its size is known",
  stdout: /^image: shots.qcow2\n.*\ncluster_size: 65536\nSnapshot list:\n.* through .*\n$/s,
};
export const APPLIED_BELOW: Difference = {
  why: "qemu-img 7.2 aborts in the middle",
  status: 0,
};
export const NOT_FOUND_BELOW: Difference = {
  why: "qemu-img 7.2 aborts in the middle",
  status: 1,
  stderr:
    /^blk: Could not apply snapshot 'none': Failed to load snapshot: No such file or directory\n$/,
};
export const NO_BITMAPS_BELOW: Difference = {
  why: "the message tells which format it is",
  stderr: /Operation add on bitmap b failed: Can't store persistent bitmaps to .*'(raw|blkdebug)'/,
};
export const NO_DATA_FILE: Difference = {
  why: "the message tells what cannot be, whatever was asked for",
  stderr: /an image with an external data file can have no internal snapshots\n$/,
};
export const NO_OBJECT: Difference = {
  why: "not in this version, and refused by name",
  status: 1,
  stderr: /--object is not supported/,
  stdout: /^$/,
};
export const PARAM: Difference = {
  why: "a message of blk is one line",
  stderr: /^blk: Failed in parsing snapshot param '.+': Invalid parameter 'snapshot\.frob'\n$/,
};
export const NO_REFCOUNT: Difference = {
  why: "the message tells what is full, and nothing was changed",
  stderr: /^blk: Could not create snapshot 'x': the refcount of .* refcount_bits=1 holds/,
};

export const OPTION_HELP: Difference = {
  why: "qemu-img's measure knows no `-o help`; the message lists what there is",
  stderr: /option 'help' is unknown; known are: /,
};
export const VERSION_WORD: Difference = {
  why: "create says it with `version=v3`, measure with `compat=1.1`; blk says it in one way",
  stderr: /require compatibility level 1\.1 or above \(use version=v3 or greater\)/,
};
export const SIZE_LIMIT: Difference = {
  why: "a size that JavaScript cannot count exactly is refused",
  stderr: /Parameter 'size': '\w+' is more than 8 PiB - 1/,
};
export const RAW_METADATA: Difference = {
  why: "the message names the file",
  stderr: /preallocation=metadata is not for a plain file/,
};
export const MINUS: Difference = {
  why: "the last word is the size; what stands before it is named as it was written",
  stderr: /unrecognized option '-1'/,
};
export const REBASE_INSTEAD: Difference = {
  why: "one line",
  stderr: /Cannot amend the backing file\. You can use 'rebase' instead\./,
};
export const CREATION_ONLY: Difference = {
  why: "one line",
  stderr: /Invalid parameter 'cluster_size'\. This option is only supported for image creation/,
};
export const AMEND_OPTION: Difference = {
  why: "the message lists what there is",
  stderr: /option 'frob' is unknown; known are: backing_file, /,
};
export const CHOICES_ANY: Difference = {
  why: "the message lists what there is",
  stderr: /option 'compat' must be one of 0\.10, 1\.1, v2, v3, not '2'/,
};
export const NUMBER: Difference = {
  why: "the message says what was written",
  stderr: /option 'refcount_bits' must be a whole number/,
};
export const AMEND_HELP: Difference = {
  why: "the texts are blocklayer's own, and what is not supported is not listed",
  stdout: /^Amend options for 'qcow2':\n.*size=<size>/s,
};
export const NO_LOOP: Difference = {
  why: "an image on itself, or in its own chain, is refused by name, also with -u",
  status: 1,
  stderr: /Could not change the backing file to '[\w.]+': it is the image itself/,
};
export const NEW_BACKING_GONE: Difference = {
  why: "blk says once which file could not be opened",
  stderr: /Could not open new backing file 'gone\.qcow2': No such file or directory/,
};

export const NO_REBUILD: Difference = {
  why: "qemu-img says no more than that its check failed; blk says what it found as well.",
  stdout: /internal errors have occurred during the check/,
  stderr: /\nERROR need to rebuild refcount structures\n/,
};

export const MENDS_MORE: Difference = {
  why: "qemu-img leaves an entry as it is that names a place behind the end of the file.",
  status: 0,
  stdout: /No errors were found on the image/,
  stderr: /^Dropping L2 table 0x40000 entry 1: /,
};

export const HOLES: Difference = {
  why: "a hole in an external data file reads as zeroes, and blk says so",
  stdout: /"present": true, "zero": true, "data": true/,
};
export const NO_BACKING_FOR_RAW: Difference = {
  why: "the message tells why",
  stderr: /^blk: data-file-raw requires that the image has no backing file\n$/,
};
export const NO_DATA_FILE_NAME: Difference = {
  why: "qemu-img takes the name away, and the image does not open any more",
  status: 1,
  stderr: /^blk: Expected data file name, got empty string\n$/,
};
