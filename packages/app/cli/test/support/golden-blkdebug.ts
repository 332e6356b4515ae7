/** Rules of blkdebug, each with a script that both tools run. */
import * as differs from "./differences-io.js";
import { type IoCase, script } from "./io-case.js";

/** A rule as options: `inject(0, "event=write_aio,errno=28")`. */
function rules(kind: "inject-error" | "set-state", ...list: readonly string[]): string {
  return list
    .map((rule, index) =>
      rule
        .split(",")
        .map((word) => `file.${kind}.${index}.${word}`)
        .join(","),
    )
    .join(",");
}

const inject = (...list: readonly string[]): string => rules("inject-error", ...list);
const states = (...list: readonly string[]): string => rules("set-state", ...list);

/** qcow2 over blkdebug with these options. */
function under(options: string, commands: string, more: Parameters<typeof script>[1] = {}): IoCase {
  const image = `driver=qcow2,file.driver=blkdebug,file.image.filename=disk.qcow2,${options}`;
  return script(commands, { options: "-t writeback --image-opts", image, ...more });
}

/** raw over blkdebug. */
function raw(options: string, commands: string, more: Parameters<typeof script>[1] = {}): IoCase {
  const image = `driver=raw,file.driver=blkdebug,file.image.filename=disk.raw,${options}`;
  return script(commands, { options: "-t writeback --image-opts", image, ...more });
}

const INJECT: readonly IoCase[] = [
  raw(inject("event=write_aio"), "read 0 1k; write 0 1k; write 0 1k; read 0 1k"),
  raw(inject("event=write_aio,once=on"), "read 0 1k; write 0 1k; write 0 1k; read 0 1k"),
  raw(inject("event=write_aio,once=on,errno=28"), "write 0 1k; write 0 1k; write 0 1k"),
  raw(inject("event=write_aio,iotype=write"), "write 0 1k; read 0 1k; write 0 1k; flush"),
  raw(inject("event=write_aio,iotype=read"), "write 0 1k; read 0 1k"),
  raw(inject("event=none,errno=28"), "read 0 1k; write 0 1k"),
  raw(inject("event=read_aio,errno=28", "event=read_aio,errno=12"), "read 0 1k; read 0 1k"),
  raw(
    inject("event=read_aio,errno=28", "event=write_aio,errno=12"),
    "read 0 1k; write 0 1k; read 0 1k",
  ),
  raw(
    inject("event=none,iotype=read", "event=write_aio,errno=28,iotype=write"),
    "read 0 1k; write 0 1k; read 0 1k",
  ),
  raw(
    inject("event=read_aio,errno=28,once=on", "event=read_aio,errno=12,once=on"),
    "read 0 1k; read 0 1k; read 0 1k",
  ),
  raw(
    inject("event=read_aio,sector=2"),
    "read 0 1k; read 1k 1k; read 0 2k; read 1k 512; read 1536 512; read 1500 100",
  ),
  raw(inject("event=read_aio,sector=2,once=on"), "read 0 1k; read 0 2k; read 0 2k"),
  raw(inject("event=read_aio,sector=-1"), "read 0 1k"),
  raw(inject("event=flush_to_disk"), "write 0 1k; flush; flush; read 0 1k"),
  raw(inject("event=flush_to_disk,once=on"), "write 0 1k; flush; flush"),
  raw(inject("event=flush_to_os,iotype=flush"), "write 0 1k; flush; read 0 1k"),
  raw(inject("event=flush_to_os,iotype=flush,sector=3"), "write 0 1k; flush; flush"),
  raw(inject("event=pwritev,iotype=write"), "write 0 1k; read 0 1k"),
  raw(
    inject("event=pwritev_zero,iotype=write-zeroes"),
    "write 0 64k; write -z 0 64k; write -z -n 0 64k",
  ),
  raw(
    inject("event=none,iotype=write-zeroes,errno=95"),
    "write 0 64k; write -z 0 64k; write -z -n 0 64k",
  ),
  raw(inject("event=none,iotype=discard"), "write 0 64k; discard 0 64k; read 0 64k"),
  raw(inject("event=none,iotype=discard,errno=95"), "write 0 64k; discard 0 64k"),
  raw(inject("event=none,iotype=block-status"), "map; alloc 0 64k; read 0 1k"),
  raw(inject("event=none,errno=0"), "read 0 1k; write 0 1k"),
  raw(inject("event=none,errno=0", "event=none,errno=28"), "read 0 1k"),
  raw(inject("event=none,errno=28", "event=none,errno=0"), "read 0 1k"),
  raw(inject("event=none,immediately=on,errno=28"), "read 0 1k; write 0 1k"),
  raw(inject("event=read_aio,state=2"), "read 0 1k; read 0 1k"),
  raw(inject("event=read_aio,state=1"), "read 0 1k; read 0 1k"),
  raw(inject("event=read_aio,state=0"), "read 0 1k; read 0 1k"),
  raw(inject("event=none,state=2,iotype=read"), "read 0 1k"),
];

const STATES: readonly IoCase[] = [
  raw(
    `${states("event=write_aio,new_state=2")},${inject("event=read_aio,state=2,errno=28")}`,
    "read 0 1k; write 0 1k; read 0 1k; read 0 1k",
  ),
  raw(
    `${states("event=write_aio,state=1,new_state=2", "event=write_aio,state=2,new_state=3")},${inject("event=read_aio,state=3")}`,
    "write 0 1k; read 0 1k; write 0 1k; read 0 1k",
  ),
  raw(
    `${states("event=read_aio,new_state=2")},${inject("event=read_aio,state=2", "event=read_aio,state=1,errno=28")}`,
    "read 0 1k; read 0 1k; read 0 1k",
  ),
  raw(
    `${states("event=read_aio,new_state=2", "event=read_aio,new_state=3")},${inject("event=write_aio,state=2,errno=28", "event=write_aio,state=3,errno=12")}`,
    "read 0 1k; write 0 1k",
  ),
  raw(
    `${states("event=read_aio,state=1,new_state=2", "event=read_aio,state=2,new_state=1")},${inject("event=read_aio,state=2,errno=28,once=on")}`,
    "read 0 1k; read 0 1k; read 0 1k; read 0 1k",
  ),
  raw(`${states("event=write_aio")},${inject("event=read_aio,state=0")}`, "write 0 1k; read 0 1k", {
    differs: differs.NO_NEW_STATE,
  }),
  raw(states("new_state=2"), "length", { differs: differs.BLKDEBUG_RULE }),
  raw(inject("errno=5"), "length", { differs: differs.BLKDEBUG_RULE }),
  raw(inject("event=nonsense"), "length", { differs: differs.BLKDEBUG_RULE }),
  raw(inject("event=read_aio,iotype=nonsense"), "length", { differs: differs.BLKDEBUG_RULE }),
  raw(inject("event=read_aio,frob=1"), "length", { differs: differs.BLKDEBUG_RULE }),
  raw(inject("event=read_aio,once=perhaps"), "length", { differs: differs.BLKDEBUG_RULE }),
  raw(inject("event=read_aio,state=x"), "length", { differs: differs.BLKDEBUG_RULE }),
];

const METADATA: readonly IoCase[] = [
  "l2_alloc_write",
  "cluster_alloc",
  "refblock_load",
  "refblock_update_part",
  "write_aio",
].map((event) =>
  under(
    inject(`event=${event},once=on`),
    "read 0 4k; write -P 1 0 64k; flush; write -P 2 0 64k; flush; read -P 2 0 64k",
    { judge: "check" },
  ),
);

const LIMITS: readonly IoCase[] = [
  raw(
    "file.align=512",
    "write -P 1 0 1k; write -P 2 100 100; read -P 2 100 100; read -P 1 200 300",
  ),
  raw(
    "file.align=4096",
    "write -P 1 0 64k; write -P 2 1000 9000; read -P 2 1000 9000; read -P 1 10000 1k",
  ),
  under("file.align=4096", "write -P 1 0 64k; write -P 2 1000 9000; flush; read -P 2 1000 9000"),
  under(
    "file.max-transfer=4096",
    "write -P 1 0 200k; flush; read -P 1 0 200k; write -c -P 2 1M 64k",
  ),
  raw(
    "file.align=512,file.max-transfer=1024,file.opt-write-zero=2048,file.max-write-zero=4096",
    "write 0 64k; write -z 1000 30000; read -P 0 1000 30000; read -P 0xcd 31000 1k",
  ),
  raw(
    "file.opt-discard=4096,file.max-discard=8192",
    "write 0 64k; discard 8k 40k; read -P 0xcd 0 8k; read -P 0 8k 40k",
  ),
  raw("file.align=3", "length", { differs: differs.LIMIT }),
  raw("file.align=4096,file.max-transfer=1000", "length", { differs: differs.LIMIT }),
  raw("file.max-write-zero=1000,file.opt-write-zero=512", "length", { differs: differs.LIMIT }),
  raw("file.align=512,file.opt-discard=100", "length", { differs: differs.LIMIT }),
  raw("file.align=2G", "length", { differs: differs.LIMIT }),
];

const FILES: readonly IoCase[] = [
  script("read 0 1k; write 0 1k; write 0 1k", { image: "blkdebug:rules.conf:disk.qcow2" }),
  script("read 0 1k; write 0 1k; write 0 1k", {
    options: "--image-opts",
    image:
      "driver=qcow2,file.driver=blkdebug,file.config=rules.conf,file.image.filename=disk.qcow2",
  }),
  script("read 0 1k; write 0 1k; write 0 1k; read 0 1k", {
    image:
      'json:{"driver":"qcow2","file":{"driver":"blkdebug","image":{"driver":"file","filename":"disk.qcow2"},"inject-error":[{"event":"write_aio","once":true,"errno":28}]}}',
  }),
  script("write 0 1k", { image: "blkdebug:bad.conf:disk.qcow2", differs: differs.BLKDEBUG_RULE }),
  script("write 0 1k", { image: "blkdebug:worse.conf:disk.qcow2", differs: differs.BLKDEBUG_RULE }),
];

export const BLKDEBUG_CASES: readonly IoCase[] = [
  ...INJECT,
  ...STATES,
  ...METADATA,
  ...LIMITS,
  ...FILES,
];
