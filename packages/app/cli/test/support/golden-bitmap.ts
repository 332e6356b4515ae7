/** `bitmap`, step by step on one image: each line finds what those before it left. */
import { type Difference, type GoldenCase, line } from "./golden-case.js";

const GRANULARITY: Difference = {
  why: "the message tells which of the two bounds it is",
  stderr: /Granularity exceeds maximum/,
};
const INCONSISTENT: Difference = {
  why: "the message tells which command helps",
  stderr: /Bitmap 'gone' is inconsistent and cannot be used/,
};
const SKIP: Difference = {
  why: "the message is one line, and tells what became of the target",
  stderr: /Cannot copy inconsistent bitmap 'gone'\. Try --skip-broken-bitmaps/,
};
const TARGET: Difference = {
  why: "the message tells what became of the target",
  stderr: /Format driver 'qcow2' does not support bitmaps; the incomplete 'v\.qcow2' was removed/,
};
const NO_BITMAPS: Difference = {
  why: "the message tells which format it is",
  stderr: /Operation add on bitmap b failed: Can't store persistent bitmaps to .*'raw'/,
};

const VERSION_2: Difference = {
  why: "QEMU's message names a node that the user never heard of",
  stderr: /Operation add on bitmap b0 failed: Cannot store dirty bitmaps in qcow2 v2 files/,
};
const LAYOUT: Difference = {
  why: "clusters of bitmaps are not laid out in QEMU's order",
  stdout: /^No errors were found on the image\.\nImage end offset: \d+\n$/,
};

export const BITMAP_CASES: readonly GoldenCase[] = [
  line("bitmap --add bits.qcow2 b0"),
  line("bitmap --add --disable -g 4k bits.qcow2 b1"),
  line("bitmap --add bits.qcow2 b0"),
  line("bitmap --remove bits.qcow2 zz"),
  line("bitmap --add -g 1000 bits.qcow2 b3"),
  line("bitmap --add -g 4G bits.qcow2 b3", { differs: GRANULARITY }),
  line("bitmap --merge b0 bits.qcow2 b1"),
  line("bitmap --merge zz bits.qcow2 b0"),
  line("bitmap --merge theirs -b marked.qcow2 -F qcow2 bits.qcow2 b1"),
  line("bitmap --enable bits.qcow2 b1"),
  line("bitmap --disable bits.qcow2 b0"),
  line("bitmap --clear bits.qcow2 b0"),
  line("bitmap --add --remove bits.qcow2 b9"),
  line("bitmap bits.qcow2 b0"),
  line("bitmap --add bits.qcow2"),
  line("bitmap --merge"),
  line("bitmap -g 4k --clear bits.qcow2 b0"),
  line("bitmap -b bits.qcow2 --clear bits.qcow2 b0"),
  line("bitmap -F qcow2 --add bits.qcow2 b0"),
  line("bitmap --add -f raw small.raw b", { differs: NO_BITMAPS }),
  line("bitmap --add old.qcow2 b0", { differs: VERSION_2 }),
  line("bitmap --clear stale.qcow2 gone", { differs: INCONSISTENT }),
  line("convert --bitmaps -O qcow2 stale.qcow2 x.qcow2", { differs: SKIP }),
  line("convert --bitmaps --skip-broken-bitmaps -O qcow2 stale.qcow2 y.qcow2"),
  line("convert --bitmaps -O qcow2 bits.qcow2 z.qcow2", { makes: "z.qcow2", alike: "disk" }),
  line("bitmap --remove stale.qcow2 gone"),
  line("check bits.qcow2", { differs: LAYOUT }),
  line("check z.qcow2"),
  line("convert --skip-broken-bitmaps -O qcow2 bits.qcow2 x.qcow2"),
  line("snapshot -c one bits.qcow2"),
  line("convert --bitmaps -l one -O qcow2 bits.qcow2 of-one.qcow2", {
    makes: "of-one.qcow2",
    alike: "disk",
  }),
  line("bitmap --merge b1 -b of-one.qcow2 -F qcow2 bits.qcow2 b0"),
  line("convert --bitmaps -O raw bits.qcow2 x.raw"),
  line("convert --bitmaps -O qcow2 old.qcow2 v.qcow2"),
  line("convert --bitmaps -O qcow2 -o compat=0.10 z.qcow2 v.qcow2", { differs: TARGET }),
  line("convert --bitmaps -O qcow2 bits.qcow2 data.qcow2 x.qcow2"),
  line("info --output=json marked.qcow2"),
  line("info marked.qcow2"),
];
