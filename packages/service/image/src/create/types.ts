/** What creation takes and gives. */
import type { OptionValue } from "@blocklayer/block-api";
import type { OpenGate } from "@blocklayer/block-graph";
import type { DriverChoice } from "../open/types.js";

/** Options of `createImage`. */
export interface CreateImageOptions extends DriverChoice {
  /** Path or protocol file name of the new image. */
  readonly filename: string;
  /** Default `raw`. */
  readonly format?: string;
  /** The disk's size; absent: the `size` option, or the backing image's size. */
  readonly sizeBytes?: number;
  /** `-o`: strings are read as qemu-img reads them. Options of the format and of the protocol, mixed. */
  readonly options?: Readonly<Record<string, OptionValue | undefined>>;
  readonly backing?: BackingChoice;
  /** Do not open the backing image, not even to learn its size or to see that it is there (`-u`). */
  readonly unsafeNoBackingCheck?: boolean;
  /** For the backing image's own chain. Default: `fileOpenGate`. */
  readonly openGate?: OpenGate;
  /** Called when the options are complete and before anything is made: qemu-img prints its line here. */
  readonly onFormatting?: (plan: CreatePlan) => void;
  readonly signal?: AbortSignal;
}

/** The backing image of a new one. */
export interface BackingChoice {
  /** As it shall stand in the new image: relative to the new image's folder. */
  readonly filename: string;
  /** Must be given: nobody guesses the format of a backing file. */
  readonly format?: string;
}

/** What will be made. */
export interface CreatePlan {
  readonly filename: string;
  readonly format: string;
  readonly sizeBytes: number;
  /** Every option with its value, in the order in which qemu-img prints them. */
  readonly options: readonly (readonly [name: string, value: OptionValue])[];
}

/** What was made. */
export interface CreateImageResult extends CreatePlan {
  /** `false`: a file (or a device) of that name was there before. */
  readonly isNewFile: boolean;
}
