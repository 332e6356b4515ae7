/** The library in ten lines; the README shows what stands between the marks. */
// README begins
import { fileDriver } from "@blocklayer/file";
import { fileOpenGate, openImage } from "@blocklayer/image";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";

const drivers = [fileDriver, rawDriver, qcow2Driver]; // bring your own, too

export async function tenLines(path: string, copy: WritableStream<Uint8Array>): Promise<void> {
  const openGate = fileOpenGate({ drivers }); // decides about every file that an image names
  await using disk = await openImage(path, { drivers, openGate, readOnly: false });

  const sector = await disk.read(0, 512); // from the image, or from its backing chain
  await disk.write(1000, sector); // any byte range
  for await (const { offset, lengthBytes, data, depth } of disk.extents()) {
    console.log(offset, lengthBytes, data ? `data, ${depth} below the top` : "zeroes");
  }
  await disk.readable().pipeTo(copy); // a Web stream of the contents
  await disk.flush(); // on the disk; then `await using` closes
}
// README ends
