/** The services behind qemu-img's words. Start reading in open/open-image.ts. */
export { amendImage, type AmendImageOptions } from "./amend/amend-image.js";
export { benchImage, type BenchOptions } from "./bench/bench-image.js";
export {
  type BitmapAction,
  copyBitmaps,
  type CopyBitmapsOptions,
  editBitmap,
} from "./bitmap/edit-bitmaps.js";
export { checkImage, type CheckImageOptions, type CheckImageResult } from "./info/check-image.js";
export { commitImage, type CommitOptions } from "./commit/commit-image.js";
export { compareImages } from "./compare/compare-images.js";
export type { CompareOptions, CompareResult } from "./compare/types.js";
export { convertImage } from "./copy/convert-image.js";
export type {
  ConvertOptions,
  ConvertResult,
  TargetBacking,
  UnreadableRange,
} from "./copy/types.js";
export {
  ConvertTarget,
  type ExistingTargetOptions,
  type NewTargetOptions,
} from "./create/convert-target.js";
export { createImage } from "./create/create-image.js";
export type {
  BackingChoice,
  CreateImageOptions,
  CreateImageResult,
  CreatePlan,
} from "./create/types.js";
export { diskFormatInfo } from "./info/disk-format-info.js";
export { imageInfo, imageInfoChain, type ImageInfoOptions } from "./info/image-info.js";
export { mapImage, type MapImageOptions } from "./info/map-image.js";
export { measureImage, type MeasureImageOptions } from "./measure/measure-image.js";
export type { ImageCheck, ImageInfo, MapEntry, SnapshotInfo } from "./info/types.js";
export { type CacheMode, type CacheModeName, parseCacheMode } from "./open/cache-mode.js";
export { parseFilename } from "./open/filename.js";
export { fileOpenGate, type FileOpenGateOptions } from "./open/open-gate.js";
export { imageNodeOptions, openImage } from "./open/open-image.js";
export { parseOptionString } from "./open/option-string.js";
export {
  applySnapshot,
  createSnapshot,
  type CreateSnapshotOptions,
  deleteSnapshot,
  listSnapshots,
} from "./snapshot/change-snapshots.js";
export { parseSnapshotParam } from "./snapshot/snapshot-param.js";
export { rebaseImage, type RebaseOptions } from "./rebase/rebase-image.js";
export { resizeImage, type ResizeOptions } from "./resize/resize-image.js";
export type { DriverChoice, ImageSource, OpenImageOptions } from "./open/types.js";
