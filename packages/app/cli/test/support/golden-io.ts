/** Scripts of `blk io`, which go through qemu-io as well, on twin images. */
import * as differs from "./differences-io.js";
import { type IoCase, script } from "./io-case.js";

const READS: readonly IoCase[] = [
  script("read 0 64k"),
  script("write -P 0x41 0 20; read -v 0 40; read -v 16 3; readv -v 4 10 10"),
  script("write -P 1 0 64k; read -P 1 0 64k; read -P 2 0 64k; read -P 0x01 0 1k; read -P 01 0 1k"),
  script(
    "write -P 1 0 4k; read -P 1 -s 1k 0 2k; read -P 2 -s 1k 0 2k; read -P 2 -s 512 -l 512 0 2k",
  ),
  script("read -P 0 -l 4k 0 2k; read -P 0 -s 3k 0 2k; read -s 0 0 2k; read -l 0 0 2k"),
  script("read -q 0 1k; read -p 0 1k; read -C 0 1k"),
  script("read -P zz 0 2k; read -P 256 0 2k; read -P -1 0 2k; read -P 0 0 2k"),
  script("read 0; read; read 0 1k 2k; read x 1k; read 0 x; read -1 1k; read -Z 0 1k; read -x"),
  script("read 4M 1k; read 4095k 2k; read 4M 0; read 0 0; read 3G 1M"),
  script("read 0 3G; read 0 2147483648; read 0 2147483137"),
  script("read 1.5k 512; read 0 1K; read 0 1b; read 0 0x200; read 0 1s; read 0 1kk; read 0 .5k"),
  script("read 8E 512; read 0 9E"),
  script("readv 0 1k 2k; readv -P 0 0 1k 1k; readv -P 1 0 1k; readv -q 0 1k; readv -C 0 1k 1k"),
  script("readv 0; readv 0 x; readv 0 0; readv 3M 1M 1M; readv 0 3G; readv 0 1G 1G"),
  script("read  0   1k ; read\t0 1k; read -q 0 1k;; length"),
  script("read -- 0 1k; read 0 1k -q; read -qP 0 0 1k; read -P0 0 1k; read -P"),
  script("r 0 1k; w 0 1k; l; f; d 0 1k; t 4M; s; ?x"),
];

const WRITES: readonly IoCase[] = [
  script("write 0 64k; read -P 0xcd 0 64k"),
  script("write -P 300 0 1k; write -P x 0 1k; write -P 255 0 1k"),
  script("write -P 7 0 256k; write -z 64k 64k; write -z -u 128k 64k; write -z 1000 100"),
  script("write -z -n 0 64k; write -z -n 100 100; write -n 0 1k; write -u 0 1k"),
  script("write -f 0 1k; write -zf 0 1k; write -c -f 0 64k; write -b -z 0 1k"),
  script("write -c 0 64k; write -c -P 9 64k 128k; read -P 9 64k 128k; read -P 0xcd 0 64k"),
  script("write -c 0 1k; write -c 1k 64k; write -c 4M 64k"),
  script("write -c -P 9 0 64k; write -P 8 0 64k; read -P 8 0 64k"),
  script("write 0 64k; write -c -P 5 0 64k", { differs: differs.COMPRESSED_OVER }),
  script("write -c -z 0 64k; read -P 0 0 64k"),
  script("write -z -P 1 0 1k; write -s pattern.bin -P 1 0 1k; write -s pattern.bin -z 0 1k"),
  script("write -s pattern.bin 0 1k; write -s pattern.bin 2M 100; read -v 1020 8"),
  script("write -s gone.bin 0 1k; write -s empty.bin 0 1k"),
  script("write -q 0 1k; write -C 0 1k; write -p 0 1k; write 0 0; write -z 0 0"),
  script("write 4M 1k; write 4095k 4k; write -z 4M 1k; write 4M 0"),
  script("write 0; write; write 0 1k 2k; write -Z 0 1k; write x 1; write 0 x"),
  script("write -z 0 3G; write 0 3G; write -z -n 0 3G"),
  script(
    "writev 0 1k 1k; writev -P 4 8k 1k; writev -f 0 1k; writev -z 0 1k; writev 0; writev -C 0 1k 1k",
  ),
  script("writev -q 64k 1k 2k 3k; read -P 0xcd 64k 6k; read -P 0 70k 1k"),
  script("write -P 1 1000 70000; write -P 2 60000 10; read -P 1 1000 59000; read -P 2 60000 10"),
];

const VM_STATE: readonly IoCase[] = [
  script(
    "write -P 1 0 64k; write -b -P 7 0 64k; read -b -P 7 0 64k; read -b -P 0 64k 1k; read -P 1 0 64k",
    { judge: "bytes" },
  ),
  script("write -b -P 9 1M 3M; read -b -P 9 1M 3M; read -b -P 0 512k 512k; read -b 1T 1M", {
    judge: "bytes",
  }),
  script("write -b -P 9 512 1k; write -b -P 8 1k 8k; write -b 100G 512; read -b -P 8 1k 8k", {
    image: "small.qcow2",
    judge: "bytes",
  }),
  script("read -b 100 512; read -b 0 100; write -b 100 512; write -b 0 100; write -c 0 100"),
  script("write -bc 0 64k; write -b -f 0 1k; write -b -n 0 1k; write -b -z 0 1k; read -b -v 0 512"),
  script(
    "write -b 0 0; read -b 0 0; read -b -q 0 1k; write -b -s pattern.bin 0 1k; write -b 1P 1k",
  ),
  script("read -b -P 0 -s 512 -l 1k 0 2k; read -b -P 1 0 1k; read -b -s 0 0 1k"),
  script("write -b 0 64k; read -b -P 0 0 1k", { options: "-r" }),
  script("write -b 0 64k; read -b -P 0xcd 0 64k", { options: "-t writeback", judge: "bytes" }),
  script("write -b -P 5 0 64k; read -b -P 5 0 64k; discard 0 64k", { options: "-s" }),
  script("read -b -P 0 0 1k; write -b -P 3 512 512; read -b -P 0 0 512; read -b -P 3 512 512", {
    image: "top.qcow2",
    judge: "bytes",
  }),
  script("write -b 0 64k; truncate 8M; read -b -P 0xcd 0 64k; info"),
  script("write -b 0 64k; read -b 0 1k", { options: "-f raw", image: "disk.raw" }),
  script("write -b -P 5 0 64k; read -b -P 5 0 64k", {
    options: "--image-opts",
    image: "driver=blkdebug,image.driver=qcow2,image.file.filename=disk.qcow2",
    judge: "bytes",
  }),
  script("info", {
    options: "--image-opts",
    image: "driver=blkdebug,image.driver=qcow2,image.file.filename=disk.qcow2",
    differs: differs.NAMED_ONCE,
  }),
  script("write -b 0 64k", { image: "apart.qcow2", differs: differs.VM_STATE }),
];

const BESIDE: readonly IoCase[] = [
  script("aio_write -P 1 0 64k; aio_flush; aio_read -P 1 0 64k; aio_flush"),
  script("aio_read -P 9 0 1k; aio_flush; aio_read -v 0 16; aio_flush; aio_read -q 0 1k; aio_flush"),
  script("aio_read 4M 1k; aio_flush; aio_write 4M 1k; aio_flush"),
  script("aio_read -i 0 1k; aio_write -i 0 1k; aio_flush"),
  script("aio_write -z 0 64k; aio_flush; aio_write -zu 64k 64k; aio_flush; aio_write -z 0 1k 1k"),
  script(
    "aio_write -P 3 0 1k 1k; aio_flush; aio_write -q 0 1k; aio_flush; aio_write -f 0 1k; aio_flush",
  ),
  script("aio_write -u 0 1k; aio_read; aio_write; aio_write 0 x; aio_read 0 x; aio_write 0 3G"),
  script("aio_write -z 0 3G; aio_flush; aio_write -C 0 1k; aio_flush; aio_read -C 0 1k; aio_flush"),
  script("aio_write -P 4 1M 64k"),
  script("aio_flush; aio_flush 1; flush; flush 1"),
];

/** Parts of clusters, over what reads as zero two layers below, one below, or not at all. */
const PARTIAL_ZEROES: readonly IoCase[] = ["third.qcow2", "fourth.qcow2", "two.qcow2"].flatMap(
  (image) =>
    [
      "write -z 3000k 1k; write -z 3500k 512; map; alloc 0 4M",
      "write -z 520k 1k; write -z 2M 512; write -z 1k 2k; map; alloc 0 4M",
      "write -z -u 1000k 48k; write -z 1023k 2k; write -z -n 3M 1k; write -z -n 0 1k; map",
      "write -P 5 3000k 1k; write -z 3001k 1k; write -z 2999k 1k; write -z 4095k 1k; map",
    ].map((commands) => script(commands, { image, judge: "bytes" })),
);

const DISK: readonly IoCase[] = [
  script("write 0 128k; discard 0 64k; read -P 0 0 64k; read -P 0xcd 64k 64k; map; alloc 0 1M"),
  script("discard -C 0 64k; discard -q 0 64k; discard 4M 64k; discard 0; discard x 1; discard 0 0"),
  script("discard 0 3G; discard -P 1 0 1; discard 0 1 2"),
  script("write 0 128k; discard 0 64k; read -P 0xcd 0 64k", { options: "-d ignore" }),
  script("write 0 64k; discard 1000 30000; read -P 0xcd 0 64k"),
  script(
    "truncate 5M; length; truncate 5M; truncate -m off 6M; length; write -P 3 5M 1M; read -P 3 5M 1M",
  ),
  script("truncate; truncate x; truncate -1; truncate -m foo 5M; truncate 1 2 3 4"),
  script("length; length 1; map 1; info 1; info"),
  script("info", { image: "small.qcow2" }),
  script("info; map; length; alloc 0 1M; alloc 0 2M", { options: "-f raw", image: "disk.raw" }),
  script("write -P 1 100 100; read -P 1 100 100; read -P 0 0 100; discard 0 64k", {
    options: "-f raw",
    image: "disk.raw",
  }),
  script("write 0 64k; write -z 1M 64k; write -c 2M 64k; map"),
  script(
    "alloc 0; alloc 0 64k; alloc 4M 1k; alloc 5M; alloc 4095k 2k; alloc 1000 512; alloc 0 100",
  ),
  script("write 64k 64k; alloc 0 1M; alloc 64k; alloc x; alloc 0 x; alloc; alloc 1 2 3"),
  script("read -P 7 0 64k; write -P 8 0 1k; read -P 8 0 1k; read -P 7 1k 63k; map; alloc 0 1M", {
    image: "top.qcow2",
  }),
];

const OPENING: readonly IoCase[] = [
  script("close; read 0 1k; length; close; open disk.qcow2; read 0 1k"),
  script("open disk.qcow2; open; open a b; open -Z x", { differs: differs.OPEN_USAGE }),
  script("read 0 1k; length; help nonsense; nonsense", { image: null }),
  script("open -r disk.qcow2; write 0 1k; read 0 1k", { image: null }),
  script("open -o driver=qcow2 disk.qcow2; write 0 1k", { image: null }),
  script("open -o driver=qcow2,file.filename=disk.qcow2; write 0 1k", { image: null }),
  script("open gone.qcow2; write 0 1k", { image: null }),
  script("open -n -t foo disk.qcow2; open -d foo disk.qcow2; open -U disk.qcow2", { image: null }),
  script(
    "open -s disk.qcow2; write 0 1k; read -P 0xcd 0 1k; close; open disk.qcow2; read -P 0 0 1k",
    {
      image: null,
    },
  ),
  script("reopen; reopen -r; write 0 1k; reopen -w; write 0 1k; reopen -r -w; reopen x"),
  script("reopen -c foo; reopen -c writeback; write 0 1k; reopen -c writethrough; write 0 1k"),
  script("reopen -o pass-discard-other=on; write 0 1k; reopen -o foo=1", {
    differs: differs.REOPEN_OPTION,
  }),
  script("write 0 1k; write -z 0 1k; discard 0 1k; truncate 8M; flush; aio_write 0 1k; read 0 1k", {
    options: "-r",
  }),
  script("reopen -w; write 0 1k", { options: "-r" }),
  script("length", { options: "-f raw", differs: differs.EXACT }),
  script("length", { options: "-f foo", differs: differs.DRIVER }),
  script("write 0 1k; read 0 1k", { options: "-n" }),
  script("write 0 1k; read 0 1k", { options: "-t writeback" }),
  script("write 0 1k", { options: "-t foo" }),
  script("length", { options: "-d foo" }),
  script("length", { options: "-U" }),
  script("length", { options: "-U -r" }),
  script("length", { image: "gone.qcow2" }),
  script("write -P 77 0 1k; read -P 77 0 1k; info; map", { options: "-s" }),
  script("length; write 0 1k", {
    options: "--image-opts",
    image: "driver=qcow2,file.filename=disk.qcow2",
  }),
  script("length", {
    options: "--image-opts -f qcow2",
    image: "driver=qcow2,file.filename=disk.qcow2",
  }),
  script("length", { options: "--image-opts", image: "driver=foo", differs: differs.DRIVER }),
  script("length; quit; length"),
  script("q; length"),
  script("length; write 9M 1; length"),
  script("sleep 1; sleep x; sleep; sleep 1 2"),
  script("length; read 0 1k; nonsense; quit", { isTyped: true }),
  script("length; write 9M 1k; ; length", { isTyped: true }),
  script("help 1 2; quit 1; length"),
];

const BREAKS: readonly IoCase[] = [
  script("break write_aio A; resume A; remove_break A"),
  script("break; break a; resume; wait_break; remove_break; break a b c"),
  script(
    "break nonsense A; resume A; remove_break A; break write_aio B; remove_break B; resume B",
    {
      image: "blkdebug::disk.qcow2",
    },
  ),
  script(
    "break write_aio A; aio_write -P 5 0 64k; wait_break A; read -P 0 0 64k; resume A; aio_flush; read -P 5 0 64k",
    {
      image: "blkdebug::disk.qcow2",
    },
  ),
  script("break write_aio A; aio_write 0 64k; wait_break A; remove_break A; aio_flush", {
    image: "blkdebug::disk.qcow2",
    differs: differs.REMOVED,
  }),
  script(
    "break write_aio A; aio_write 0 64k; wait_break A; break write_aio A; remove_break A; aio_flush",
    { image: "blkdebug::disk.qcow2" },
  ),
  script(
    "break write_aio A; break write_aio B; aio_write 0 64k; wait_break A; resume A; resume B; resume A; aio_flush",
    { image: "blkdebug::disk.qcow2" },
  ),
  script(
    "break write_aio A; aio_write 0 64k; wait_break A; break write_aio A; aio_write 1M 64k; sleep 100; resume A; sleep 200; resume A; aio_flush",
    { image: "blkdebug::disk.qcow2" },
  ),
  script(
    "break write_aio A; aio_write -P 1 0 64k; wait_break A; break write_aio B; aio_write -P 2 64k 64k; wait_break B; resume B; sleep 200; resume A; aio_flush; read -P 1 0 64k; read -P 2 64k 64k",
    { image: "blkdebug::disk.qcow2" },
  ),
  script("break pwritev A; aio_write -P 1 0 64k; wait_break A; resume A; aio_flush", {
    image: "blkdebug::disk.qcow2",
  }),
  script("break pwritev A; aio_write -P 1 0 64k; wait_break A; resume A; aio_flush", {
    options: "--image-opts",
    image: "driver=blkdebug,image.driver=qcow2,image.file.filename=disk.qcow2",
  }),
  script(
    "break read_aio A; write 0 64k; aio_read -P 0xcd 0 64k; wait_break A; resume A; aio_flush",
    {
      options: "--image-opts",
      image: "driver=qcow2,file.driver=blkdebug,file.image.filename=disk.qcow2",
    },
  ),
  script("break read_aio A; aio_read -P 0 0 64k; wait_break A; resume A; aio_flush", {
    options: "--image-opts",
    image: "driver=raw,file.driver=blkdebug,file.image.filename=disk.raw",
  }),
  script("write 0 64k; read 0 64k", {
    image: "blkdebug:gone.conf:disk.qcow2",
    differs: differs.CONFIG,
  }),
  script("length", { image: "blkdebug:disk.qcow2", differs: differs.BLKDEBUG_NAME }),
];

export const IO_CASES: readonly IoCase[] = [
  ...READS,
  ...WRITES,
  ...VM_STATE,
  ...PARTIAL_ZEROES,
  ...BESIDE,
  ...DISK,
  ...OPENING,
  ...BREAKS,
];
