import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import { createImage, fileOpenGate, imageInfo, imageInfoChain, openImage } from "../src/index.js";
import { Files } from "./support/files.js";

function setUp() {
  const files = new Files();
  const drivers = [files.driver, rawDriver, qcow2Driver];
  const create = (filename: string, base?: string, format = "qcow2") =>
    createImage({
      drivers,
      filename,
      format: "qcow2",
      sizeBytes: 1 << 20,
      unsafeNoBackingCheck: true,
      ...(base === undefined ? {} : { backing: { filename: base, format } }),
    });
  return { files, drivers, create };
}

/** Makes an image forget the format of its backing file: an unknown header extension instead. */
function forgetBackingFormat(files: Files, filename: string): void {
  const bytes = files.get(filename);
  const view = new DataView(bytes.buffer);
  for (let at = 104; at < 512; at += 4) {
    if (view.getUint32(at) === 0xe2792aca) view.setUint32(at, 0x12345678);
  }
  files.put(filename, bytes);
}

test("openImage() must find the format by the first bytes, and say when it took raw", async () => {
  const { files, drivers, create } = setUp();
  await create("q");
  files.put("r", new Uint8Array(512));
  const raws: string[] = [];
  const onProbedRaw = (name: string): void => void raws.push(name);
  await using q = await openImage("q", { drivers, onProbedRaw });
  await using r = await openImage("r", { drivers, onProbedRaw });
  expect([q.root.driverName, r.root.driverName, q.readOnly]).toEqual(["qcow2", "raw", true]);
  expect(raws).toEqual(["r"]);
});

test("openImage() must refuse to guess when probing is not allowed", async () => {
  const { drivers, create } = setUp();
  await create("q");
  await expect(openImage("q", { drivers, allowProbing: false })).rejects.toThrow(/must be given/);
});

test("openImage() must keep a guest from turning a probed raw disk into another format", async () => {
  const { files, drivers } = setUp();
  files.put("r", new Uint8Array(4096));
  await using disk = await openImage("r", { drivers, readOnly: false });
  const header = new Uint8Array(512);
  header.set([0x51, 0x46, 0x49, 0xfb]);
  await expect(disk.write(0, header)).rejects.toMatchObject({ code: "EPERM" });
});

test.each([
  ["json, nested", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q"}}', {}],
  ["json, dotted", 'json:{"driver":"qcow2","file.driver":"file","file.filename":"q"}', {}],
  ["image-opts", "driver=qcow2,file.driver=file,file.filename=q", { imageOpts: true }],
  ["image-opts without a protocol", "driver=qcow2,file.filename=q", { imageOpts: true }],
  ["image-opts without a format", "file.driver=file,file.filename=q", { imageOpts: true }],
  ["options", { driver: "qcow2", file: { driver: "file", filename: "q" } }, {}],
  ["a byte store's options and a format", { driver: "file", filename: "q" }, { format: "qcow2" }],
])("openImage() must open an image named by %s", async (_what, source, options) => {
  const { drivers, create } = setUp();
  await create("q");
  await using disk = await openImage(source, { drivers, ...options });
  expect([disk.root.driverName, disk.lengthBytes]).toEqual(["qcow2", 1 << 20]);
});

test("openImage() must refuse a format that is not the one in the options", async () => {
  const { drivers, create } = setUp();
  await create("q");
  const source = { driver: "qcow2", file: { driver: "file", filename: "q" } };
  await expect(openImage(source, { drivers, format: "raw" })).rejects.toThrow(
    /format given is 'raw'/,
  );
});

test("openImage() must open the chain, a relative name beside the image that holds it", async () => {
  const { files, drivers, create } = setUp();
  files.put("dir/base", new Uint8Array(1 << 20).fill(3));
  await create("dir/mid", "base", "raw");
  await create("top", "dir/mid");
  await using disk = await openImage("top", { drivers });
  expect((await disk.read(4096, 2))[1]).toBe(3);
  expect(files.opened).toContain("dir/base");
});

test("openImage() must let the caller replace or detach the backing image", async () => {
  const { files, drivers, create } = setUp();
  await create("top", "nowhere", "raw");
  await using none = await openImage("top", { drivers, backing: null });
  expect((await none.read(0, 1))[0]).toBe(0);
  files.put("other", new Uint8Array(512).fill(8));
  await using replaced = await openImage("top", { drivers, backing: "other" });
  expect((await replaced.read(0, 1))[0]).toBe(8);
});

test("fileOpenGate() must refuse a backing file without a format, and say what to do", async () => {
  const { files, drivers, create } = setUp();
  await create("base");
  await create("top", "base");
  forgetBackingFormat(files, "top");
  await expect(openImage("top", { drivers })).rejects.toThrow(
    /rebase -u -b 'base' -F <format> 'top'/,
  );
  const openGate = fileOpenGate({ drivers, unsafeProbeBacking: true });
  await using disk = await openImage("top", { drivers, openGate });
  expect(disk.root.backing?.driverName).toBe("qcow2");
});

test("fileOpenGate() must ask the caller's rule, with the resolved name", async () => {
  const { files, drivers, create } = setUp();
  files.put("dir/base", new Uint8Array(512));
  await create("dir/top", "base", "raw");
  const asked: string[] = [];
  const allow = ({ resolvedName }: { readonly resolvedName: string }): boolean => {
    asked.push(resolvedName);
    return false;
  };
  const openGate = fileOpenGate({ drivers, allow });
  await expect(openImage("dir/top", { drivers, openGate })).rejects.toMatchObject({
    code: "EACCES",
  });
  expect(asked).toEqual(["dir/base"]);
});

test("openImage() must leave nothing open after a failure", async () => {
  const { drivers, create } = setUp();
  await create("top", "nowhere", "raw");
  await expect(openImage("top", { drivers })).rejects.toMatchObject({ code: "ENOENT" });
});

test("imageInfo() must tell about an image whose chain is broken", async () => {
  const { drivers, create } = setUp();
  await create("dir/top", "nowhere", "raw");
  expect(await imageInfo("dir/top", { drivers })).toMatchObject({
    filename: "dir/top",
    "full-backing-filename": "dir/nowhere",
  });
});

test("imageInfoChain() must list the chain from the top, and stop at a loop", async () => {
  const { files, drivers, create } = setUp();
  files.put("base", new Uint8Array(512));
  await create("mid", "base", "raw");
  await create("top", "mid");
  const chain = await imageInfoChain("top", { drivers });
  expect(chain.map(({ filename, format }) => [filename, format])).toEqual([
    ["top", "qcow2"],
    ["mid", "qcow2"],
    ["base", "raw"],
  ]);
  await create("a", "b");
  await create("b", "a");
  await expect(imageInfoChain("a", { drivers })).rejects.toMatchObject({ code: "ELOOP" });
});
