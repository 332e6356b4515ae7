/** Host files and block devices. Start reading in open-file.ts. */
export { createDevice, createFile } from "./create-file.js";
export { FileDriver } from "./file-driver.js";
export type { LockingMode, LockState } from "./image-lock.js";
export { type LockSupport, lockSupport } from "./lock-support.js";
export { loadNative, type NativeFs, type NativeLoad } from "./native.js";
export { fileDriver, hostDeviceDriver, openFile, type OpenFileOptions } from "./open-file.js";
