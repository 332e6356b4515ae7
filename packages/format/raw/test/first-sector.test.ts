import { IoVector } from "@blocklayer/bytes";
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { openMemory } from "@blocklayer/memory";
import { expect, test } from "vitest";
import { openRaw, type RawDriver } from "../src/index.js";

const bytesOf = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));
const QCOW2 = "QFI\u00fb";
const write = (disk: RawDriver, offset: number, text: string): unknown =>
  disk.writev(offset, IoVector.of(bytesOf(text)));
const refused: unknown = expect.objectContaining({ code: "EPERM" });

function probed(offset = 0): { bytes: () => Uint8Array; disk: RawDriver } {
  const file = openMemory({ lengthBytes: 4096 + offset });
  const disk = openRaw(directChild(file), { probed: true, offset });
  return { disk, bytes: () => file.bytes };
}

test.each([
  ["qcow2", 0, QCOW2],
  ["qed", 0, "QED\0"],
  ["vmdk", 0, "KDMV"],
  ["vmdk", 0, "COWD"],
  ["vmdk", 0, "# Disk DescriptorFile\nversion=1\n"],
  ["vmdk", 0, "#\n \n# any comment\n\r\nversion=2\n"],
  ["vhdx", 0, "vhdxfile"],
  ["vpc", 0, "conectix"],
  ["luks", 0, "LUKS\u00ba\u00be"],
  ["parallels", 0, "WithoutFreeSpace"],
  ["parallels", 0, "WithouFreSpacExt"],
  ["bochs", 0, "Bochs Virtual HD Image"],
  ["cloop", 0, "#!/bin/sh\n#V2.0 Format\n"],
  ["vdi", 64, "\u007f\u0010\u00da\u00be"],
])("a probed disk must refuse to become %s (at %i)", (format, offset, text) => {
  const { disk, bytes } = probed();
  expect(() => write(disk, offset, text)).toThrow(refused);
  expect(() => write(disk, offset, text)).toThrow(`look like ${format}`);
  expect(bytes()).toEqual(new Uint8Array(4096));
});

test("a probed disk must refuse a header that comes in harmless pieces", () => {
  const { disk } = probed();
  write(disk, 0, "QF");
  write(disk, 3, "\u00fb");
  expect(() => write(disk, 2, "I")).toThrow(refused);
  write(disk, 2, "X");
});

test("a probed disk must refuse pieces that are sent at once", async () => {
  const file = openMemory({ lengthBytes: 4096 });
  const child = directChild(file);
  const slow: BlockChild = {
    ...child,
    lengthBytes: 4096,
    limits: child.limits,
    capabilities: child.capabilities,
    readv: async (...request) => child.readv(...request),
    writev: async (...request) => {
      for (let turn = 0; turn < 5; turn++) await Promise.resolve();
      return child.writev(...request);
    },
  };
  const disk = openRaw(slow, { probed: true });
  const outcomes = await Promise.allSettled([write(disk, 0, "QF"), write(disk, 2, "I\u00fb")]);
  expect(outcomes.map((outcome) => outcome.status)).toEqual(["fulfilled", "rejected"]);
  expect(file.bytes.subarray(0, 4)).toEqual(bytesOf("QF\0\0"));
  // A refusal must not hold up what comes behind it.
  await write(disk, 2, "ok");
  expect(file.bytes.subarray(0, 4)).toEqual(bytesOf("QFok"));
});

test("a probed disk must refuse zeroes that uncover a header", () => {
  const { disk } = probed();
  write(disk, 0, "QEDX");
  expect(() => disk.writeZeroes(3, 1)).toThrow(refused);
  expect(() => disk.discard(3, 1)).toThrow(refused);
  expect(disk.writeZeroes(0, 512)).toBeUndefined();
});

test("a probed disk must take everything else, and headers anywhere else", () => {
  const { disk, bytes } = probed();
  write(disk, 0, "QFI");
  write(disk, 512, QCOW2);
  write(disk, 1, QCOW2);
  expect(bytes().subarray(512, 516)).toEqual(bytesOf(QCOW2));
});

test("a probed disk must judge a window by the window's first sector", () => {
  const { disk } = probed(1024);
  expect(() => write(disk, 0, QCOW2)).toThrow(refused);
});

test("a probed disk must judge a file that is shorter than a sector", () => {
  const disk = openRaw(directChild(openMemory({ lengthBytes: 2 })), { probed: true });
  write(disk, 0, "QF");
  expect(() => write(disk, 2, "I\u00fb")).toThrow(refused);
});

test("a disk that was opened as raw by name must take any header", () => {
  const file = openMemory({ lengthBytes: 4096 });
  write(openRaw(directChild(file)), 0, QCOW2);
  expect(file.bytes.subarray(0, 4)).toEqual(bytesOf(QCOW2));
});
