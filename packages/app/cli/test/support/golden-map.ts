/** `map`, for people and for programs. */
import { EXACT, NO_EXTENT, PAST_END } from "./differences.js";
import { type GoldenCase, line } from "./golden-case.js";

const names = [
  "empty.qcow2",
  "data.qcow2",
  "packed.qcow2",
  "data.raw",
  "top.qcow2",
  "third.qcow2",
  "snap.qcow2",
  "parts.qcow2",
];
const broken = ["orphan.qcow2", "gone"];

export const MAP_CASES: readonly GoldenCase[] = [
  ...[...names, ...broken].flatMap((name) => [
    line(`map ${name}`),
    line(`map --output=json ${name}`),
  ]),
  line("map nothing.raw"),
  line("map --output=json nothing.raw", { differs: NO_EXTENT }),
  line("map text.txt"),
  line("map --output=json text.txt", { differs: EXACT }),
  line("map cut.qcow2", { differs: PAST_END }),
  line("map --output=json cut.qcow2", { differs: PAST_END }),
  line("map --output=json -s 64k -l 1M data.qcow2"),
  line("map --output=json --start-offset=1000 --max-length=200000 data.qcow2"),
  line("map --output=json --start-offset=8M data.qcow2", { differs: NO_EXTENT }),
  line("map --output=json --max-length=0 data.qcow2", { differs: NO_EXTENT }),
  line("map --output=json -U -f qcow2 data.qcow2"),
  line("map --output=json --image-opts driver=qcow2,file.filename=data.qcow2"),
  line("map apart.qcow2"),
  line("map --output=json apart.qcow2"),
];
