/** Names of nodes: QEMU's rules for those that users give, and `#block000` for the others. */
import { BlockError } from "@blocklayer/bytes";

/** QEMU keeps a name in 32 bytes with its terminator. */
const MAX_NAME_LENGTH = 31;
const NAME_PATTERN = /^[A-Za-z][A-Za-z0-9._-]*$/;

/**
 * Refuses a name that QEMU would refuse.
 *
 * @throws BlockError `EINVAL`
 */
export function checkNodeName(name: string): void {
  if (name.length > MAX_NAME_LENGTH) {
    throw new BlockError(
      "EINVAL",
      `node name '${name}' is longer than ${MAX_NAME_LENGTH} characters`,
    );
  }
  if (NAME_PATTERN.test(name)) return;
  throw new BlockError(
    "EINVAL",
    `node name '${name}' must begin with a letter, and go on with letters, digits, '-', '.' and '_'`,
  );
}

/** Hands out `#block000`, `#block001`, …: no user's name begins with `#`. */
export class NodeNamer {
  #next = 0;

  next(): string {
    const name = `#block${String(this.#next).padStart(3, "0")}`;
    this.#next++;
    return name;
  }
}
