import { BlockError, IoVector } from "@blocklayer/bytes";
import { directChild } from "@blocklayer/block-api";
import { expect, test } from "vitest";
import { plainly, ReferenceDisk, SimDisk, stampedBytes, TrackedGuest } from "../src/index.js";

function guestOf(disk: SimDisk): { guest: TrackedGuest; reference: ReferenceDisk } {
  const reference = new ReferenceDisk({ lengthBytes: disk.lengthBytes });
  return { guest: new TrackedGuest(directChild(disk), reference), reference };
}

test("read() must compare what it reads with the model", async () => {
  const disk = new SimDisk({ lengthBytes: 2048 });
  const { guest } = guestOf(disk);
  plainly(guest.write(512, stampedBytes(1, 512, 1024)));
  await guest.read(0, 2048);
  plainly(disk.writev(600, IoVector.of(new Uint8Array(4))));
  await expect(guest.read(0, 2048)).rejects.toThrow("sector 1");
  await guest.read(1024, 1024);
});

test("grow() must tell the model, also when it fails", () => {
  const disk = new SimDisk({ lengthBytes: 512, maxLengthBytes: 1024 });
  const { guest, reference } = guestOf(disk);
  plainly(guest.grow(1024));
  reference.check(disk.bytes);
  expect(() => guest.grow(2048)).toThrow(BlockError);
  reference.check(disk.bytes);
  reference.check(new Uint8Array(2048));
});
