/** `check`: exit statuses 0, 1, 2, 3 and 63. */
import { ALONE } from "./differences.js";
import { type GoldenCase, line } from "./golden-case.js";

const sound = [
  "empty.qcow2",
  "data.qcow2",
  "packed.qcow2",
  "top.qcow2",
  "old.qcow2",
  "odd.qcow2",
  "snap.qcow2",
];
const broken = ["leaky.qcow2", "corrupt.qcow2", "both.qcow2", "dirty.qcow2", "cut.qcow2"];
const none = [
  "data.raw",
  "text.txt",
  "gone",
  "short.qcow2",
  "bad-version.qcow2",
  "bad-features.qcow2",
];

export const CHECK_CASES: readonly GoldenCase[] = [
  ...[...sound, ...broken, ...none].flatMap((name) => [
    line(`check ${name}`),
    line(`check --output=json ${name}`),
  ]),
  line("check orphan.qcow2", { differs: ALONE }),
  line("check --output=json orphan.qcow2", { differs: ALONE }),
  line("check -q data.qcow2"),
  line("check -q leaky.qcow2"),
  line("check -f raw data.qcow2"),
  line("check -f qcow2 data.raw"),
  line("check -T none data.qcow2"),
  line("check -U data.qcow2"),
  line("check --image-opts driver=qcow2,file.filename=data.qcow2"),
  line("check apart.qcow2"),
];
