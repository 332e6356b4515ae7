// Writes src/zstd-binary.ts from the pinned @bokuweb/zstd-wasm. Run it after raising that pin, and look again at the
// names in src/zstd-wasm.ts and src/worker-zstd.ts: a minifier chose them, for this very file.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { gzipSync } from "fflate";

const require = createRequire(import.meta.url);
const entry = require.resolve("@bokuweb/zstd-wasm");
const wasm = readFileSync(new URL("zstd.wasm", `file://${entry}`));
const packed = Buffer.from(gzipSync(wasm, { level: 9, mtime: 0 })).toString("base64");
writeFileSync(
  new URL("src/zstd-binary.ts", import.meta.url),
  `/*!
 * The zstd library (BSD-3-Clause, Copyright (c) Meta Platforms, Inc. and affiliates) as WebAssembly, compiled by
 * @bokuweb/zstd-wasm (MIT, Copyright (c) bokuweb): see THIRD-PARTY.md of @blocklayer/codec.
 */
/**
 * Made by generate-zstd-binary.mjs: \`zstd.wasm\` of @bokuweb/zstd-wasm 0.0.27, gzipped, in base64.
 *
 * Above: zstd-wasm, which imports it when the first zstd cluster comes along. Below: nothing.
 */
export const ZSTD_WASM_GZIP_BASE64: string =
  "${packed}";
`,
);
