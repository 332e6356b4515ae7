/** `info`, for people and for programs. */
import {
  CHAIN,
  DRIVER,
  EXACT,
  FOLDER,
  GUESS_FAILS,
  OPTION,
  PROTOCOL,
  WORDS,
} from "./differences.js";
import { type GoldenCase, line } from "./golden-case.js";

const names = [
  "empty.qcow2",
  "data.qcow2",
  "packed.qcow2",
  "data.raw",
  "top.qcow2",
  "third.qcow2",
  "orphan.qcow2",
  "parts.qcow2",
];
const more = ["unnamed.qcow2", "old.qcow2", "odd.qcow2", "nothing.raw", "cut.qcow2"];
const broken = [
  "bad-version.qcow2",
  "bad-features.qcow2",
  "bad-cluster.qcow2",
  "dirty.qcow2",
  "short.qcow2",
];
const others = [
  "leaky.qcow2",
  "marked.qcow2",
  "gone",
  "no/such",
  "file:data.qcow2",
  "./data.qcow2",
];

export const INFO_CASES: readonly GoldenCase[] = [
  ...[...names, ...more, ...broken, ...others].flatMap((name) => [
    line(`info ${name}`),
    line(`info --output=json ${name}`),
  ]),
  line("info snap.qcow2"),
  line("info --output=json snap.qcow2"),
  line("info text.txt", { differs: EXACT }),
  line("info --output=json text.txt", { differs: EXACT }),
  line("info folder", { differs: FOLDER }),
  line("info frob:x", { differs: PROTOCOL }),
  line("info --backing-chain third.qcow2"),
  line("info --backing-chain --output=json third.qcow2"),
  line("info --backing-chain orphan.qcow2", { differs: CHAIN }),
  line("info --backing-chain --output=json data.qcow2"),
  line("info --backing-chain unnamed.qcow2", { differs: GUESS_FAILS }),
  line("info -f raw data.qcow2"),
  line("info -f qcow2 data.raw"),
  line("info -f qcow2 text.txt"),
  line("info -f frob data.qcow2", { differs: DRIVER }),
  line("info -U data.qcow2"),
  line("info --image-opts driver=qcow2,file.driver=file,file.filename=data.qcow2"),
  line("info --image-opts driver=qcow2,file.filename=data.qcow2"),
  line("info --image-opts file.filename=data.qcow2"),
  line("info --image-opts filename=data.qcow2", { differs: WORDS }),
  line("info --image-opts driver=frob,file.filename=data.qcow2", { differs: DRIVER }),
  line("info --image-opts driver=qcow2,frob=1,file.filename=data.qcow2", { differs: OPTION }),
  line("info --image-opts driver=qcow2", { differs: WORDS }),
  line("info --image-opts -f qcow2 file.filename=data.qcow2"),
  { words: ["info", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"data.qcow2"}}'] },
  { words: ["info", "--output=json", 'json:{"driver":"qcow2","file.filename":"data.qcow2"}'] },
  { words: ["info", 'json:{"file":{"driver":"file","filename":"data.qcow2"}}'] },
  { words: ["info", "json:{broken"], differs: WORDS },
  { words: ["info", 'json:{"driver":"frob"}'], differs: DRIVER },
  { words: ["info", ""], differs: WORDS },
  line("info apart.qcow2"),
  line("info --output=json apart.qcow2"),
];
