/** The drivers that a graph knows: by name, by file name, by what the bytes look like. */
import { BlockError, IoVector } from "@blocklayer/bytes";
import type { BlockChild, DriverDefinition } from "@blocklayer/block-api";

/** How much of a file a probe sees. */
const PROBE_BYTES = 2048;

export class DriverRegistry {
  readonly #byName = new Map<string, DriverDefinition>();

  constructor(drivers: readonly DriverDefinition[]) {
    for (const driver of drivers) {
      if (this.#byName.has(driver.name)) {
        throw new BlockError("EEXIST", `two drivers are called '${driver.name}'`);
      }
      this.#byName.set(driver.name, driver);
    }
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** @throws BlockError `EINVAL` that lists the drivers there are */
  get(name: string): DriverDefinition {
    const driver = this.#byName.get(name);
    if (driver !== undefined) return driver;
    const known = [...this.#byName.keys()].join(", ");
    throw new BlockError("EINVAL", `driver '${name}' is unknown; known are: ${known || "none"}`, {
      op: "open",
    });
  }

  /** The protocol that a file name belongs to: by its prefix, else `file`. */
  protocolOf(filename: string): DriverDefinition {
    for (const driver of this.#byName.values()) {
      if (driver.protocolPrefixes?.some((prefix) => filename.startsWith(prefix)) === true) {
        return driver;
      }
    }
    return this.get("file");
  }

  /**
   * The format that is surest of the first bytes.
   *
   * @param file - at least readable
   * @throws BlockError `EINVAL` when no driver claims them
   */
  async probe(file: BlockChild): Promise<string> {
    const head = new Uint8Array(Math.min(PROBE_BYTES, file.lengthBytes));
    if (head.length > 0) await file.readv(0, IoVector.of(head));
    let best: DriverDefinition | undefined;
    let bestScore = 0;
    for (const driver of this.#byName.values()) {
      const score = driver.probe?.(head) ?? 0;
      if (score <= bestScore) continue;
      best = driver;
      bestScore = score;
    }
    if (best !== undefined) return best.name;
    if (this.#byName.has("raw")) return "raw";
    throw new BlockError("EINVAL", `node '${file.nodeName}': no driver knows this format`, {
      op: "probe",
      node: file.nodeName,
    });
  }
}
