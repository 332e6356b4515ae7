/** `blk snapshot`: lists, makes, applies and deletes internal snapshots. */
import { BlockError, hasCode } from "@blocklayer/bytes";
import type { BlockBackend } from "@blocklayer/block-graph";
import {
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
  listSnapshots,
  openImage,
} from "@blocklayer/image";
import { COMMON_OPTIONS, oneFilename, parseWords, UsageError } from "../command-line.js";
import { describeError } from "../describe-error.js";
import { whileOpening } from "../naming.js";
import { openOptions } from "../open-options.js";
import { snapshotListText } from "../output/snapshot-list.js";
import type { Terminal } from "../terminal.js";

const { help, object, quiet, "image-opts": imageOpts, "force-share": forceShare } = COMMON_OPTIONS;
const OPTIONS = {
  help,
  object,
  quiet,
  "image-opts": imageOpts,
  "force-share": forceShare,
  list: { type: "boolean", short: "l", multiple: true },
  apply: { type: "string", short: "a", multiple: true },
  create: { type: "string", short: "c", multiple: true },
  delete: { type: "string", short: "d", multiple: true },
} as const;

/** What is to be done. */
interface Action {
  readonly kind: "list" | "apply" | "create" | "delete";
  readonly name: string;
}

export async function snapshot(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, OPTIONS);
  const actions: Action[] = (["list", "apply", "create", "delete"] as const).flatMap((kind) =>
    (values[kind] ?? []).map((value) => ({ kind, name: String(value) })),
  );
  if (actions.length > 1) throw new UsageError("Cannot mix '-l', '-a', '-c', '-d'", true);
  const filename = oneFilename(positionals);
  const [action] = actions;
  const options = { ...openOptions(values, terminal), readOnly: action?.kind === "list" };
  await using disk = await whileOpening(filename, () => openImage(filename, options));
  if (action === undefined) return 0;
  if (action.kind === "list") {
    terminal.out(snapshotListText(await whileOpening(filename, () => listSnapshots(disk))));
    return 0;
  }
  await change(disk, action);
  return 0;
}

/** Errors in qemu-img's words where it has some. */
async function change(disk: BlockBackend, { kind, name }: Action): Promise<void> {
  try {
    if (kind === "create") await createSnapshot(disk, name);
    else if (kind === "apply") await applySnapshot(disk, name);
    // As qemu-img: an id does not do here.
    else await deleteSnapshot(disk, { name });
  } catch (error) {
    if (!(error instanceof BlockError) || error.code === "ECANCELED") throw error;
    const why = reasonOf(kind, disk, error);
    throw new BlockError(error.code, `Could not ${kind} snapshot '${name}': ${why}`, {
      cause: error,
    });
  }
}

function reasonOf(kind: Action["kind"], disk: BlockBackend, error: BlockError): string {
  const isMissing = hasCode(error, "ENOENT");
  const hasNone = disk.snapshots === undefined;
  if (kind === "delete" && (isMissing || hasNone)) return "snapshot not found";
  if (kind === "apply" && isMissing) return "Failed to load snapshot: No such file or directory";
  if (kind === "apply" && hasCode(error, "EBUSY")) return "Device has active dirty bitmaps";
  if (kind === "apply" && hasNone) return "Block driver does not support snapshots";
  if (kind === "create" && hasNone) return "-95 (Operation not supported)";
  return describeError(error);
}
