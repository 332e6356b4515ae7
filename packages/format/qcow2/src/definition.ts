/** How the qcow2 driver introduces itself to a graph. */
import type { BlockDriver, DriverDefinition, OpenContext } from "@blocklayer/block-api";
import { assert, viewOf } from "@blocklayer/bytes";
import { amendOptions } from "./amend/options.js";
import { createQcow2 } from "./create.js";
import { createOptions } from "./create-options.js";
import { QCOW2_MAGIC } from "./header/header.js";
import { measureQcow2 } from "./measure.js";
import { openDriver } from "./open.js";
import { type CodecFactory, openOptions, reopenOptions } from "./open-options.js";

/** The `qcow2` driver for a graph's registry. */
export const qcow2Driver: DriverDefinition = {
  name: "qcow2",
  kind: "format",
  openOptions,
  createOptions,
  amendOptions,
  reopenOptions,
  probe: (head) => (looksLikeQcow2(head) ? 100 : 0),
  open: (context) => openFor(context),
  create: createQcow2,
  measure: measureQcow2,
};

/**
 * The same driver with another codec: one that runs in the caller's threads, or in an order that a test decides.
 *
 * @example new BlockGraph({ drivers: [qcow2DriverWith((name) => createCodec(name, { threads: 1 }))] })
 */
export function qcow2DriverWith(createCodec: CodecFactory): DriverDefinition {
  return { ...qcow2Driver, open: (context) => openFor(context, createCodec) };
}

function openFor(context: OpenContext, createCodec?: CodecFactory): Promise<BlockDriver> {
  const { file, backing, "data-file": dataFile } = context.children;
  assert(file !== undefined, "a format is opened with a file child");
  return openDriver({
    nodeName: context.nodeName,
    file,
    readOnly: context.readOnly,
    forCheck: context.forCheck === true,
    options: context.options,
    backing,
    dataFile,
    openDataFile: context.openDataFile?.bind(context),
    createCodec,
    openBacking: (reference) => context.openBacking(reference),
  });
}

/** Version 1 has the same magic, and is another format. */
function looksLikeQcow2(head: Uint8Array): boolean {
  if (head.length < 8) return false;
  const view = viewOf(head);
  return view.getUint32(0) === QCOW2_MAGIC && view.getUint32(4) >= 2;
}
