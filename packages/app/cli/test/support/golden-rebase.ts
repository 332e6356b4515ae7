/** `rebase` and `commit`: every image here is changed in turn, so the order counts. */
import { NEW_BACKING_GONE, NO_LOOP } from "./differences.js";
import { type GoldenCase, line } from "./golden-case.js";

const changed = (words: string, makes: string): GoldenCase => line(words, { makes, alike: "disk" });
const onData = "-b data.qcow2 -F qcow2";

export const REBASE_CASES: readonly GoldenCase[] = [
  line("rebase"),
  line("rebase third.qcow2"),
  line(`rebase ${onData}`),
  line("rebase -F qcow2 third.qcow2"),
  line("rebase -b data.qcow2 third.qcow2"),
  line("rebase -b data.qcow2 -F frob third.qcow2"),
  line("rebase -t fast -b data.qcow2 -F qcow2 third.qcow2"),
  line("rebase -T fast -b data.qcow2 -F qcow2 third.qcow2"),
  line(`rebase -c ${onData} third.qcow2`),
  line(`rebase ${onData} third.qcow2 more`),
  line(`rebase -f raw ${onData} data.raw`),
  line("rebase -b gone.qcow2 -F qcow2 third.qcow2", { differs: NEW_BACKING_GONE }),
  line("rebase -u -b longer.qcow2 -F qcow2 longer.qcow2", { differs: NO_LOOP }),
  changed(`rebase ${onData} third.qcow2`, "third.qcow2"),
  line("map --output=json third.qcow2"),
  line("info --backing-chain third.qcow2"),
  changed("rebase -q -b packed.qcow2 -F qcow2 -t none -T none third.qcow2", "third.qcow2"),
  changed("rebase -b data.raw -F raw third.qcow2", "third.qcow2"),
  line("map --output=json third.qcow2"),
  { words: ["rebase", "-b", "", "third.qcow2"], makes: "third.qcow2", alike: "disk" },
  line("map --output=json third.qcow2"),
  line("info third.qcow2"),
  line("check third.qcow2"),
  changed("rebase -u -b data.raw -F raw third.qcow2", "third.qcow2"),
  { words: ["rebase", "-u", "-b", "", "third.qcow2"], makes: "third.qcow2", alike: "disk" },
  line("rebase -u -b gone.qcow2 -F qcow2 orphan.qcow2"),
  line("info orphan.qcow2"),
];

export const COMMIT_CASES: readonly GoldenCase[] = [
  line("commit"),
  line("commit a b"),
  line("commit gone"),
  line("commit -t fast top.qcow2"),
  line("commit -r x top.qcow2"),
  line("commit -f raw data.raw"),
  line("commit data.raw"),
  line("commit data.qcow2"),
  line("commit -b gone top.qcow2"),
  line("commit -b top.qcow2 top.qcow2"),
  changed("commit -d top.qcow2", "data.qcow2"),
  line("map --output=json top.qcow2"),
  changed("commit top.qcow2", "top.qcow2"),
  line("map --output=json top.qcow2"),
  line("map --output=json data.qcow2"),
  line("check top.qcow2"),
  line("check data.qcow2"),
  changed("commit -q -r 1G -t none top.qcow2", "data.qcow2"),
  changed("commit --image-opts driver=qcow2,file.filename=top.qcow2", "top.qcow2"),
];
