import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileDriver } from "@blocklayer/file";
import { createImage, openImage } from "@blocklayer/image";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { expect, test, vi } from "vitest";
import { tenLines } from "../src/ten-lines.js";

const examples = join(import.meta.dirname, "..");
const drivers = [fileDriver, rawDriver, qcow2Driver];

test("tenLines() must read through a backing file, write, list and stream the disk", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blocklayer-"));
  const log = vi.spyOn(console, "log").mockImplementation(() => undefined);
  try {
    const [base, top] = [join(folder, "base.qcow2"), join(folder, "top.qcow2")];
    await createImage({ drivers, filename: base, format: "qcow2", sizeBytes: 256 * 1024 });
    {
      await using disk = await openImage(base, { drivers, readOnly: false });
      await disk.write(0, new Uint8Array(512).fill(7));
    }
    const backing = { filename: "base.qcow2", format: "qcow2" };
    await createImage({ drivers, filename: top, format: "qcow2", backing });
    const before = readFileSync(base);

    const chunks: Uint8Array[] = [];
    await tenLines(
      top,
      new WritableStream({
        write: (chunk) => {
          chunks.push(chunk.slice());
        },
      }),
    );

    const streamed = Buffer.concat(chunks);
    const wanted = Buffer.alloc(256 * 1024);
    wanted.fill(7, 0, 512).fill(7, 1000, 1512);
    expect(Buffer.compare(streamed, wanted)).toBe(0);
    expect(Buffer.compare(readFileSync(base), before)).toBe(0);
    expect(log.mock.calls).toEqual([
      [0, 65536, "data, 0 below the top"],
      [65536, 196608, "zeroes"],
    ]);
    await using disk = await openImage(top, { drivers });
    expect(await disk.read(1000, 512)).toEqual(new Uint8Array(512).fill(7));
  } finally {
    log.mockRestore();
    rmSync(folder, { recursive: true });
  }
});

test("the README must show the marked part of ten-lines.ts", () => {
  const source = readFileSync(join(examples, "src/ten-lines.ts"), "utf8");
  const [, marked] = /\/\/ README begins\n(.*)\/\/ README ends\n/s.exec(source) ?? [];
  const readme = readFileSync(join(examples, "../README.md"), "utf8");
  const block =
    /<!-- example: examples\/src\/ten-lines\.ts -->\n```ts\n(.*?)```\n<!-- \/example -->/s;
  expect(marked).toBeDefined();
  expect(block.exec(readme)?.[1]).toBe(marked);
});
