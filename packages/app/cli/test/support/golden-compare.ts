/** `compare`: exit statuses 0 to 4. */
import { DRIVER, STEPS } from "./differences.js";
import { type GoldenCase, line } from "./golden-case.js";

export const COMPARE_CASES: readonly GoldenCase[] = [
  line("compare data.qcow2 same.qcow2"),
  line("compare data.qcow2 data.raw"),
  line("compare -f qcow2 -F raw data.qcow2 data.raw"),
  line("compare data.qcow2 packed.qcow2"),
  line("compare -q data.qcow2 same.qcow2"),
  line("compare -p data.qcow2 same.qcow2", { differs: STEPS }),
  line("compare -s data.qcow2 same.qcow2"),
  line("compare -s data.qcow2 data.qcow2"),
  line("compare -s data.qcow2 larger.qcow2"),
  line("compare data.qcow2 larger.qcow2"),
  line("compare larger.qcow2 data.qcow2"),
  line("compare data.qcow2 longer.qcow2"),
  line("compare longer.qcow2 data.qcow2"),
  line("compare data.qcow2 other.qcow2"),
  line("compare -q data.qcow2 other.qcow2"),
  line("compare data.qcow2 top.qcow2"),
  line("compare top.qcow2 third.qcow2"),
  line("compare data.qcow2 empty.qcow2"),
  line("compare data.qcow2 gone"),
  line("compare gone data.qcow2"),
  line("compare -f raw data.qcow2 data.raw"),
  line("compare -F frob data.qcow2 data.raw", { differs: DRIVER }),
  line("compare data.qcow2 cut.qcow2"),
  line("compare -U data.qcow2 same.qcow2"),
  line(
    "compare --image-opts driver=qcow2,file.filename=data.qcow2 driver=raw,file.filename=data.raw",
  ),
  line("compare apart.qcow2 apart.qcow2"),
];
