import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { driverSuite } from "@blocklayer/conformance";
import { loadNative, openFile, type OpenFileOptions } from "../src/index.js";
import { noNative, scratchDirectory } from "./support.js";

const directory = scratchDirectory();
let files = 0;

function suite(name: string, options: OpenFileOptions): void {
  driverSuite({
    name,
    capabilities: { write: true, truncate: true },
    growsPastEnd: true,
    modelRuns: Number(process.env["BLOCKLAYER_FUZZ_RUNS"] ?? 8),
    async open(lengthBytes) {
      const filename = join(directory, `conformance-${files++}.img`);
      writeFileSync(filename, new Uint8Array(lengthBytes));
      return {
        driver: await openFile(filename, options),
        reopen: () => openFile(filename, options),
        dispose: () => rmSync(filename),
      };
    },
  });
}

suite("file", { loadNative });
suite("file without native calls", { loadNative: noNative });

try {
  const probe = join(directory, "probe");
  writeFileSync(probe, new Uint8Array(4096));
  await (await openFile(probe, { direct: true })).close();
  suite("file past the page cache", { direct: true });
} catch {
  // This file system has no O_DIRECT; file-driver.test.ts skips its part visibly.
}
