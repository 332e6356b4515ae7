/** Images in memory, made by our own `create`. */
import { type BlockChild, directChild, parseOptions } from "@blocklayer/block-api";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { createOptions, createQcow2 } from "../../src/index.js";

/** A memory store as a child. */
export function childOf(bytes: Uint8Array): BlockChild {
  return directChild(openMemory({ bytes }), "file");
}

/** Makes an image in memory. */
export async function createInMemory(
  given: Readonly<Record<string, unknown>>,
): Promise<MemoryDriver> {
  const memory = openMemory();
  const options = parseOptions(createOptions, given, "qcow2");
  await createQcow2({ file: directChild(memory), options });
  return memory;
}
