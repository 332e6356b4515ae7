/** `check`: exit statuses 0, 1, 2, 3 and 63. */
import { ALONE, MENDS_MORE, NO_REBUILD } from "./differences.js";
import { type GoldenCase, line } from "./golden-case.js";

const sound = [
  "empty.qcow2",
  "data.qcow2",
  "packed.qcow2",
  "top.qcow2",
  "old.qcow2",
  "odd.qcow2",
  "snap.qcow2",
  "parts.qcow2",
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
  line("check -r some data.qcow2"),
  line("check -r all gone"),
  line("check -r all -f raw data.raw"),
  line("check -r leaks data.qcow2"),
  line("check -r all --output=json data.qcow2"),
  line("check -r leaks mend-leaky-1.qcow2", { makes: "mend-leaky-1.qcow2", alike: "bytes" }),
  line("check -r all --output=json mend-leaky-2.qcow2"),
  line("check -q -r all mend-leaky-3.qcow2"),
  line("check mend-leaky-3.qcow2"),
  line("check -r leaks mend-corrupt-1.qcow2", { differs: NO_REBUILD }),
  line("check -r all mend-corrupt-1.qcow2", { makes: "mend-corrupt-1.qcow2", alike: "disk" }),
  line("check -r all --output=json mend-corrupt-2.qcow2"),
  line("check -r all mend-both-1.qcow2"),
  line("check -r leaks mend-flag.qcow2", { makes: "mend-flag.qcow2", alike: "bytes" }),
  line("check -r all mend-marked.qcow2", { makes: "mend-marked.qcow2", alike: "bytes" }),
  line("check -r all mend-lost.qcow2", { differs: MENDS_MORE }),
];
