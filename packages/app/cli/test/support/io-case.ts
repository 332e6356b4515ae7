/** The twins hold the same disk (the default), or the same bytes; or ours passes the check. */
export type Judge = "same" | "bytes" | "check";

/** One script that both tools run. */
import type { IoDifference } from "./differences-io.js";

export interface IoCase {
  /** The program's words before the image. */
  readonly options: readonly string[];
  readonly commands: readonly string[];
  /** Given on the standard input, not with `-c`. */
  readonly isTyped: boolean;
  /** The image's name as given; absent: none. */
  readonly image: string | undefined;
  readonly differs: IoDifference | undefined;
  /** What must be right afterwards. */
  readonly judge: Judge;
}

export interface ScriptOptions {
  readonly options?: string;
  readonly image?: string | null;
  readonly differs?: IoDifference;
  readonly isTyped?: boolean;
  readonly judge?: Judge;
}

/** `script("write 0 64k; read 0 64k")`: commands between semicolons, on an empty image of 4 MiB. */
export function script(commands: string, more: ScriptOptions = {}): IoCase {
  const { options, image = "disk.qcow2", isTyped = false } = more;
  return {
    options: options === undefined ? [] : options.split(" "),
    commands: commands.split("; "),
    isTyped,
    image: image ?? undefined,
    differs: more.differs,
    judge: more.judge ?? "same",
  };
}
