/** How the qcow2 driver introduces itself to a graph. */
import type { DriverDefinition } from "@blocklayer/block-api";
import { assert, viewOf } from "@blocklayer/bytes";
import { createQcow2 } from "./create.js";
import { createOptions } from "./create-options.js";
import { QCOW2_MAGIC } from "./header/header.js";
import { openDriver } from "./open.js";
import { openOptions, reopenOptions } from "./open-options.js";

/** The `qcow2` driver for a graph's registry. */
export const qcow2Driver: DriverDefinition = {
  name: "qcow2",
  kind: "format",
  openOptions,
  createOptions,
  reopenOptions,
  probe: (head) => (looksLikeQcow2(head) ? 100 : 0),
  open: (context) => {
    const { file, backing, "data-file": dataFile } = context.children;
    assert(file !== undefined, "a format is opened with a file child");
    return openDriver({
      nodeName: context.nodeName,
      file,
      readOnly: context.readOnly,
      options: context.options,
      backing,
      dataFile,
      openDataFile: context.openDataFile?.bind(context),
      openBacking: (reference) => context.openBacking(reference),
    });
  },
  create: createQcow2,
};

/** Version 1 has the same magic, and is another format. */
function looksLikeQcow2(head: Uint8Array): boolean {
  if (head.length < 8) return false;
  const view = viewOf(head);
  return view.getUint32(0) === QCOW2_MAGIC && view.getUint32(4) >= 2;
}
