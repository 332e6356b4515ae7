/**
 * A DOS partition table with one partition.
 *
 * Layout of sector 0: boot code (446 bytes, empty here), four entries of 16 bytes, the signature 55 AA. An entry:
 * 0 status, 1–3 first CHS, 4 type, 5–7 last CHS, 8–11 first sector, 12–15 sector count; little-endian.
 */
import { SECTOR_SIZE_BYTES } from "@blocklayer/bytes";

const FIRST_ENTRY = 446;
const TYPE_FAT16_LBA = 0x0e;
/** A CHS address that says "look at the sector numbers instead". */
const CHS_UNUSED: readonly number[] = [0xfe, 0xff, 0xff];

/**
 * @param disk - the whole disk; sector 0 is written
 * @param startSector - where the partition begins
 * @param sectorCount - how long it is
 */
export function writePartitionTable(
  disk: Uint8Array,
  startSector: number,
  sectorCount: number,
): void {
  const view = new DataView(disk.buffer, disk.byteOffset, SECTOR_SIZE_BYTES);
  disk.set(CHS_UNUSED, FIRST_ENTRY + 1);
  view.setUint8(FIRST_ENTRY + 4, TYPE_FAT16_LBA);
  disk.set(CHS_UNUSED, FIRST_ENTRY + 5);
  view.setUint32(FIRST_ENTRY + 8, startSector, true);
  view.setUint32(FIRST_ENTRY + 12, sectorCount, true);
  view.setUint16(510, 0xaa55, true);
}
