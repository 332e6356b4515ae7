/** `bench`: its words, and what it prints but for the time. `work.qcow2` holds what was written last. */
import { type Difference, type GoldenCase, line } from "./golden-case.js";

const REQUEST: Difference = {
  why: "the message tells which request it was",
  stderr: /^blk: Failed request: node '.+': read of \d+ bytes at 0x[0-9a-f]+ .+\n$/,
};
const AIO: Difference = {
  why: "Node has threads, and no other way",
  status: 1,
  stderr: /is not supported by this version: requests run in threads/,
};
const SHARE: Difference = {
  why: "blk's own words",
  stderr: /^blk: Could not open 'work\.qcow2': force-share is for read-only images only\n$/,
};
function timed(words: string, more: Omit<GoldenCase, "words"> = {}): GoldenCase {
  return line(words, { hidesDates: true, ...more });
}

export const BENCH_CASES: readonly GoldenCase[] = [
  timed("bench -s 0 data.qcow2"),
  timed("bench -c 300 -d 8 -s 64k data.qcow2"),
  timed("bench -c 0x10 -d 1 -o 1M -S 68k -f raw data.raw"),
  timed("bench -c 10 -S 0 -s 8k data.qcow2"),
  timed("bench -c 0 data.qcow2"),
  timed("bench -c 3 -s 0 data.qcow2"),
  timed("bench -q -c 10 data.qcow2"),
  timed("bench -c 5 -U data.qcow2"),
  timed("bench -i threads -c 5 data.qcow2"),
  timed("bench -c 5 -t none data.qcow2"),
  timed("bench --image-opts -c 1 driver=qcow2,file.driver=file,file.filename=data.qcow2"),
  line("create -q -f qcow2 -b data.qcow2 -F qcow2 work.qcow2"),
  timed("bench -w -c 7 -d 1 -s 12k -S 76k --pattern 0x41 work.qcow2", {
    makes: "work.qcow2",
    alike: "bytes",
  }),
  timed("bench -w -c 1500 -d 64 -S 68k --pattern 17 --flush-interval 100 work.qcow2", {
    makes: "work.qcow2",
    alike: "disk",
  }),
  timed("bench -w -c 70 -d 16 --flush-interval 32 --no-drain --pattern=5 work.qcow2", {
    makes: "work.qcow2",
    alike: "disk",
  }),
  timed("bench -w -c 5 -t writethrough work.qcow2"),
  timed("bench -w -c 5 raw-work.raw"),
  line("bench -w -c 5 -U work.qcow2", { differs: SHARE }),
  timed("bench -c 1 -o 4M data.qcow2", { differs: REQUEST }),
  timed("bench -c 1 -o 3M -s 2M data.qcow2", { differs: REQUEST }),
  timed("bench -c 2 -d 1 -o 3M -S 1023k data.qcow2", { differs: REQUEST }),
  line("bench gone"),
  line("bench"),
  line("bench data.qcow2 data.raw"),
  line("bench -c x data.qcow2"),
  line("bench -c-1 data.qcow2"),
  line("bench -c 3000000000 data.qcow2"),
  line("bench -d x data.qcow2"),
  line("bench -d 3000000000 data.qcow2"),
  line("bench -o x data.qcow2"),
  line("bench -s 1x data.qcow2"),
  line("bench -s 3G data.qcow2"),
  line("bench -S 3G data.qcow2"),
  line("bench --pattern 256 -w data.qcow2"),
  line("bench --pattern=-1 -w data.qcow2"),
  line("bench --flush-interval x -w data.qcow2"),
  line("bench --flush-interval 5 data.qcow2"),
  line("bench -w -d 10 --flush-interval 5 data.qcow2"),
  line("bench -w -d 10 --flush-interval 5 --no-drain data.qcow2"),
  line("bench -t frob data.qcow2"),
  line("bench -i frob data.qcow2"),
  line("bench -n data.qcow2", { differs: AIO }),
  line("bench -i native data.qcow2", { differs: AIO }),
  line("bench --frob data.qcow2"),
];
