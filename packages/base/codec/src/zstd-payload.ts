/**
 * From the zstd data of a cluster to the cluster: which bytes a decoder gets, frame by frame.
 *
 * Above: portable-zstd, native-zstd (node). Below: zstd-frame; a decoder of single frames.
 *
 * QEMU takes a cluster whose data is several frames that together fill it exactly, skippable ones
 * among them, and looks at nothing behind. So does this. Everybody writes one frame, and that is the
 * case which `wholeFrame` finds for those who want to hand it to another thread.
 *
 * 1. A decoder gets whole frames, which claim no more content than there is room.
 * 2. It gets no window beyond `MAX_WINDOW_BYTES`: a longer one, which nothing in a cluster can make
 *    use of, is made smaller in a copy. So no frame makes a decoder allocate more.
 * 3. At most `MAX_FRAMES` frames: one that is empty costs a decoder as much time as a full one.
 */
import { damagedPayload, type DecompressItem, shortPayload } from "./codec.js";
import { MAX_BLOCK_BYTES, readZstdFrame, windowByteFor, type ZstdFrame } from "./zstd-frame.js";

/** Every decoder has to take this one (RFC 8878, section 3.1.1.1.2). No cluster is longer. */
const MAX_WINDOW_BYTES = 8 * 1024 * 1024;
/** QEMU's decoder refuses longer ones, unless the frame says how long its content is. */
const MAX_STATED_WINDOW_BYTES = 128 * 1024 * 1024;
const MAX_FRAMES = 64;

/**
 * Decodes one whole frame into the start of `target`.
 *
 * @returns how many bytes came out; -1 when the frame is damaged or gives more than fits
 */
export type FrameDecoder = (frame: Uint8Array, target: Uint8Array) => number;

/**
 * Fills the target of an item.
 *
 * @throws BlockError `EIO` when the frames are damaged or do not fill it exactly
 */
export function decodePayload(item: DecompressItem, decode: FrameDecoder): void {
  const { payload, target } = item;
  let at = 0;
  let filled = 0;
  for (let count = 0; filled < target.length; count++) {
    if (count === MAX_FRAMES) throw damagedPayload(item, `has more than ${MAX_FRAMES} frames`);
    // Cut off at the very end of a frame: that data is not damaged but too short.
    if (count > 0 && at === payload.length) throw shortPayload(item);
    const frame = readZstdFrame(payload, at);
    if (frame.kind === "damaged") throw damagedPayload(item, `the zstd frame ${frame.reason}`);
    if (frame.kind === "frame") {
      const rest = target.subarray(filled);
      const bytes = decode(frameBytes(item, at, frame, rest.length), rest);
      if (bytes < 0) throw damagedPayload(item, "the zstd frame is damaged or too long");
      filled += bytes;
    }
    at = frame.end;
  }
}

/**
 * The item's first frame, if it may be all that there is: not if it says that it is no whole cluster.
 *
 * @returns undefined when only `decodePayload` can tell, or can tell what is wrong
 */
export function wholeFrame({ payload, target }: DecompressItem): Uint8Array | undefined {
  const frame = readZstdFrame(payload, 0);
  if (frame.kind !== "frame") return undefined;
  const { contentBytes = target.length, windowBytes, end } = frame;
  if (contentBytes !== target.length || windowBytes > MAX_WINDOW_BYTES) return undefined;
  return payload.subarray(0, end);
}

/** What the decoder gets of a frame that has `roomBytes` to fill. */
function frameBytes(
  item: DecompressItem,
  at: number,
  frame: ZstdFrame,
  roomBytes: number,
): Uint8Array {
  const { contentBytes, windowBytes, windowAt, end } = frame;
  if (contentBytes !== undefined && contentBytes > roomBytes) {
    const message = `the zstd frame says that it holds ${contentBytes} bytes, for ${roomBytes}`;
    throw damagedPayload(item, message);
  }
  if (contentBytes === undefined && windowBytes > MAX_STATED_WINDOW_BYTES) {
    throw damagedPayload(item, `the zstd frame asks for a window of ${windowBytes} bytes`);
  }
  const bytes = item.payload.subarray(at, end);
  if (windowAt === undefined || windowBytes <= MAX_WINDOW_BYTES) return bytes;
  const smaller = bytes.slice();
  smaller[windowAt - at] = windowByteFor(Math.max(roomBytes, MAX_BLOCK_BYTES));
  return smaller;
}
