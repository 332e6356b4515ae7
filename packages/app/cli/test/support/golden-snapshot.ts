/** `snapshot`, and `convert -l`: what they change is compared as a disk, and by `info`. */
import {
  APPLIED_BELOW,
  FORCE_SHARE,
  NAMED_BY_FILE,
  NO_BITMAPS_BELOW,
  NO_DATA_FILE,
  NO_OBJECT,
  NO_REFCOUNT,
  NO_SNAPSHOTS,
  NO_WARNING,
  NOT_FOUND_BELOW,
  PARAM,
} from "./differences.js";
import { type GoldenCase, line } from "./golden-case.js";

/** Lists show when a snapshot was taken: the two programs take theirs one after the other. */
const list = (words: string, more: Omit<GoldenCase, "words"> = {}): GoldenCase =>
  line(words, { hidesDates: true, ...more });
/** A change: the disk is the same afterwards, and so is the list. */
const change = (action: string, more: Omit<GoldenCase, "words"> = {}): readonly GoldenCase[] => [
  line(`snapshot ${action} shots.qcow2`, { makes: "shots.qcow2", alike: "disk", ...more }),
  list("snapshot -l shots.qcow2"),
];
const shown = (param: string, more: Omit<GoldenCase, "words"> = {}): GoldenCase =>
  line(`convert -l ${param} -O raw shots.qcow2 shown.raw`, {
    makes: "shown.raw",
    alike: "bytes",
    ...more,
  });
const notShown = (param: string): GoldenCase =>
  line(`convert -l ${param} -O raw shots.qcow2 none.raw`);

/** The image below nodes that keep no snapshots. */
const THROUGH = [
  "driver=blkdebug,image.driver=qcow2,image.file.filename=shots.qcow2",
  "driver=raw,file.driver=qcow2,file.file.filename=shots.qcow2",
  "driver=raw,file.driver=blkdebug,file.image.driver=qcow2,file.image.file.filename=shots.qcow2",
];

export const SNAPSHOT_CASES: readonly GoldenCase[] = [
  line("snapshot -l shots.qcow2"),
  line("snapshot -q -l shots.qcow2"),
  line("snapshot -l -U shots.qcow2"),
  line("snapshot -l --force-share shots.qcow2"),
  line("snapshot shots.qcow2"),
  line("snapshot -l empty.qcow2"),
  line("snapshot -l data.raw"),
  line("snapshot -l gone"),
  line("snapshot -c x gone"),
  line("snapshot --image-opts -l driver=qcow2,file.filename=shots.qcow2"),
  line("snapshot"),
  line("snapshot -l"),
  line("snapshot -l shots.qcow2 empty.qcow2"),
  line("snapshot -l -c x shots.qcow2"),
  line("snapshot -c x -c y shots.qcow2"),
  line("snapshot -l -l shots.qcow2"),
  line("snapshot -z shots.qcow2"),
  line("snapshot -f qcow2 -l shots.qcow2"),
  line("snapshot -c"),
  line("snapshot --object secret,id=a,data=b -l shots.qcow2", { differs: NO_OBJECT }),
  line("snapshot -U -c x shots.qcow2", { differs: FORCE_SHARE }),
  ...["-c", "-a", "-d"].map((action) =>
    line(`snapshot ${action} x data.raw`, { differs: NO_WARNING }),
  ),
  shown("first"),
  shown("1"),
  shown("2"),
  shown("snapshot.id=2"),
  shown("snapshot.name=2"),
  shown("snapshot.id=1,snapshot.name=2"),
  shown("small"),
  ...["9", "none", "snapshot.id=9", "snapshot.name=9", "snapshot.id=2,snapshot.name=2"].map(
    notShown,
  ),
  line("convert -l snapshot.frob=1 -O raw shots.qcow2 none.raw", { differs: PARAM }),
  line("convert -l 1 -O raw data.raw none.raw", { differs: NO_SNAPSHOTS }),
  line("convert -l 1 -O raw shots.qcow2 shots.qcow2 none.raw"),
  ...change("-c new"),
  ...change("-c new"),
  ...change("-a first"),
  ...change("-a 2"),
  ...change("-a none"),
  ...change("-a small"),
  ...change("-a first"),
  ...change("-d 1"),
  ...change("-d first"),
  ...change("-d 2"),
  ...change("-d new"),
  ...change("-c last"),
  ...change("-d none"),
  ...change("-c é"),
  ...change("-c a-name-that-is-longer-than-its-column"),
  ...change("-a é"),
  ...change("-d é"),
  ...THROUGH.flatMap((image) => [
    line(`snapshot --image-opts -c through ${image}`, { makes: "shots.qcow2", alike: "disk" }),
    list(`snapshot --image-opts -l ${image}`),
    list(`info --image-opts ${image}`, { differs: NAMED_BY_FILE }),
    line("resize shots.qcow2 2M"),
    ...(image.includes("blkdebug")
      ? [
          line(`snapshot --image-opts -a through ${image}`, { differs: APPLIED_BELOW }),
          line(`snapshot --image-opts -a none ${image}`, { differs: NOT_FOUND_BELOW }),
        ]
      : [
          line(`snapshot --image-opts -a through ${image}`, {
            makes: "shots.qcow2",
            alike: "disk",
          }),
          line(`snapshot --image-opts -a none ${image}`),
        ]),
    line(`snapshot --image-opts -d through ${image}`, { makes: "shots.qcow2", alike: "disk" }),
    line(`snapshot --image-opts -d none ${image}`),
    list("snapshot -l shots.qcow2"),
    line(`convert --image-opts -l small -O raw ${image} none.raw`, { differs: NO_SNAPSHOTS }),
    line(`bitmap --image-opts --add ${image} b`, { differs: NO_BITMAPS_BELOW }),
  ]),
  line("check shots.qcow2"),
  line("snapshot -c x noted.qcow2"),
  line("snapshot -a x noted.qcow2"),
  line("snapshot -d x noted.qcow2"),
  line("check noted.qcow2"),
  line("snapshot -l apart.qcow2"),
  line("snapshot -c x apart.qcow2", { differs: NO_DATA_FILE }),
  line("snapshot -a x apart.qcow2", { differs: NO_DATA_FILE }),
  line("snapshot -d x apart.qcow2", { differs: NO_DATA_FILE }),
  line("snapshot -c x narrow.qcow2", { differs: NO_REFCOUNT }),
];
