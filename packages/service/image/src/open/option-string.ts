/** What stands behind `-o`, read as qemu-img reads it. */
import { parseKeyValues } from "@blocklayer/block-api";

/**
 * Reads what stands behind one or several `-o`. A later value replaces an earlier one; `help` alone is a key too.
 *
 * @throws BlockError `EINVAL`
 * @example parseOptionString("cluster_size=2M,lazy_refcounts") // { cluster_size: "2M", lazy_refcounts: "on" }
 */
export function parseOptionString(texts: string | readonly string[]): Record<string, string> {
  const all = typeof texts === "string" ? [texts] : texts;
  return Object.fromEntries(all.flatMap((text) => parseKeyValues(text)));
}
