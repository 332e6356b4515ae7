// What runs in the browser: the library on images that are held in memory. Node talks to it through `globalThis.page`.
import { directChild, parseOptions } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { createOptions, createQcow2, openQcow2 } from "@blocklayer/qcow2";

const CLUSTER = 65536;

/** Reads a whole disk. Resolves to its length and its SHA-256 in hexadecimal. */
async function hashOfImage(url) {
  const image = await bytesOf(url);
  const disk = await openQcow2({ file: directChild(openMemory({ bytes: image })), readOnly: true });
  try {
    const content = new Uint8Array(disk.lengthBytes);
    await disk.readv(0, IoVector.of(content));
    return { lengthBytes: content.length, sha256: await sha256(content) };
  } finally {
    await disk.close();
  }
}

/** Makes an image of compressed clusters that shows the bytes behind `from`, and sends it to `to`. */
async function writeImage(from, to, compressionType) {
  const content = await bytesOf(from);
  const memory = openMemory();
  const file = directChild(memory);
  const given = { size: content.length, compression_type: compressionType };
  await createQcow2({ file, options: parseOptions(createOptions, given, "qcow2") });
  const disk = await openQcow2({ file });
  for (let at = 0; at < content.length; at += CLUSTER) {
    const cluster = IoVector.of(content.subarray(at, at + CLUSTER));
    await disk.writev(at, cluster, { compressed: true });
  }
  const { compressedWrites } = disk.statistics();
  await disk.close();
  const { ok } = await fetch(to, { method: "POST", body: memory.bytes });
  if (!ok) throw new Error(`${to}: not taken`);
  return { compressedWrites };
}

async function bytesOf(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function sha256(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

globalThis.page = { hashOfImage, writeImage };
