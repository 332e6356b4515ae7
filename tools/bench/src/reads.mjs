// Random-free 4 KiB reads through the library, as `qemu-img bench` does them: reads.mjs FORMAT FILE COUNT DEPTH
import { BlockGraph } from "@blocklayer/block-graph";
import { fileDriver } from "@blocklayer/file";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";

const [format, filename, count, depth] = process.argv.slice(2);
const graph = new BlockGraph({ drivers: [fileDriver, rawDriver, qcow2Driver] });
const disk = await graph.open(
  { driver: format, file: { driver: "file", filename } },
  { readOnly: true },
);
const LENGTH = 4096;
let left = Number(count);
let next = 0;

async function reader() {
  const buffer = new Uint8Array(LENGTH);
  while (left > 0) {
    left--;
    const offset = next;
    next = offset + 2 * LENGTH > disk.lengthBytes ? 0 : offset + LENGTH;
    await disk.readInto(offset, buffer);
  }
}

const start = process.hrtime.bigint();
await Promise.all(Array.from({ length: Number(depth) }, reader));
const seconds = Number(process.hrtime.bigint() - start) / 1e9;
console.log(`Run completed in ${seconds.toFixed(3)} seconds.`);
await disk.close();
