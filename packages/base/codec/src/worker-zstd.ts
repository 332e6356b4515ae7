/**
 * The zstd part of a worker's program, as text; see worker-source.
 *
 * Above: worker-source, which puts it in. Below: node:zlib inside the worker where it has zstd, else
 * the module that comes with the request, called as in zstd-wasm.
 *
 * Its names: `nativeZstd()` and `wasmZstd(module)`, which return a `compressor(level)` and a
 * `decompress`, both "transforms" as worker-source has them.
 */
export const WORKER_ZSTD_SOURCE: string = `
function nativeZstd() {
  return {
    compressor(level) {
      const params = { [zlib.constants.ZSTD_c_compressionLevel]: level };
      return (input, output, at, room) => {
        const chunkSize = Math.max(room, Z_MIN_CHUNK);
        const frame = zlib.zstdCompressSync(input, { params, chunkSize });
        if (frame.length >= room) return 0;
        output.set(frame, at);
        return room - frame.length;
      };
    },
    decompress(input, output, at, room) {
      try {
        const bytes = zlib.zstdDecompressSync(input, {
          chunkSize: Math.max(room, Z_MIN_CHUNK),
          maxOutputLength: Math.max(room, 1),
        });
        output.set(bytes, at);
        return room - bytes.length;
      } catch {
        return -1;
      }
    },
  };
}

const MAX_WASM_BYTES = 512 * 1024 * 1024;

function wasmZstd(module) {
  const fail = () => {
    throw new Error("zstd gave up");
  };
  const grow = (wanted) => {
    if (wanted >>> 0 > MAX_WASM_BYTES) return 0;
    try {
      zstd.f.grow(Math.ceil(((wanted >>> 0) - zstd.f.buffer.byteLength) / 65536));
      return 1;
    } catch {
      return 0;
    }
  };
  const imports = { a: { a: fail, b: fail, c: fail, d: fail, e: grow } };
  const zstd = new WebAssembly.Instance(module, imports).exports;
  zstd.g();
  const checked = (pointer) => {
    if (pointer === 0) throw new Error("zstd has no memory left");
    return pointer;
  };
  const area = () => {
    let pointer = 0;
    let length = 0;
    return (needed) => {
      if (pointer === 0 || needed > length) {
        zstd.t(pointer);
        pointer = checked(zstd.s(Math.max(needed, 1)));
        length = needed;
      }
      return pointer;
    };
  };
  const [source, target] = [area(), area()];
  const put = (bytes) => {
    const pointer = source(bytes.length);
    new Uint8Array(zstd.f.buffer).set(bytes, pointer);
    return pointer;
  };
  let compressing = 0;
  let decompressing = 0;
  return {
    compressor: (level) => (input, output, at, room) => {
      compressing ||= checked(zstd.j());
      const bound = zstd.i(input.length);
      const [from, to] = [put(input), target(bound)];
      const length = zstd.l(compressing, to, bound, from, input.length, 0, 0, level);
      if (zstd.h(length) !== 0) throw new Error("zstd failed with code " + -length);
      if (length >= room) return 0;
      output.set(new Uint8Array(zstd.f.buffer, to, length), at);
      return room - length;
    },
    decompress(input, output, at, room) {
      decompressing ||= checked(zstd.n());
      const [from, to] = [put(input), target(room)];
      const length = zstd.q(decompressing, to, room, from, input.length, 0, 0);
      if (zstd.h(length) !== 0) return -1;
      output.set(new Uint8Array(zstd.f.buffer, to, length), at);
      return room - length;
    },
  };
}
`;
