// Deliberate defects: each takes one safeguard out of the code that is simulated. A simulator that does not notice is
// itself the defect; test/defects.test.ts and `npm run sim -- teeth` try them all.
//
// A defect is a change of one compiled module, made while it is loaded: nothing on the disk changes, and the code under
// test needs no hooks of its own. A text that is not found exactly once is an error, so that a defect cannot go stale.
import { readFileSync } from "node:fs";
import { register } from "node:module";
import { fileURLToPath } from "node:url";

/**
 * @typedef {object} Defect
 * @property {string} rule - which rule of docs/rules.md it breaks
 * @property {string} what
 * @property {import("./config.mjs").Mode} mode - where it shows
 * @property {number} seeds - within so many seeds from 1 it must
 * @property {boolean} [quick] - the first few seeds do, so `npm test` tries it too
 * @property {{ because: string, file: string, test: string }} [hidden] - why it cannot show here, and the test that
 *   proves the rule instead: its file below packages, and its name
 * @property {string} module - as imported, or a file of such a package's dist
 * @property {string} find
 * @property {string} put
 */

const order = (name, body) => ({
  module: "@blocklayer/qcow2/writeback/order.js",
  find: `export function ${name}(image) {`,
  put: `export function ${name}(image) {\n    ${body}`,
});

/** @type {Readonly<Record<string, Defect>>} */
export const DEFECTS = {
  "no-refcounts-before-l2": {
    rule: "C2",
    what: "an L2 entry reaches the file before the refcounts of what it names",
    mode: "crashes",
    seeds: 60,
    quick: true,
    ...order("l2WaitsForRefcounts", "return;"),
  },
  "no-data-before-l2": {
    rule: "C5",
    what: "an L2 entry reaches the file before the data that it shows",
    mode: "crashes",
    seeds: 200,
    ...order("l2WaitsForData", "return;"),
  },
  "no-compressed-before-l2": {
    rule: "S11",
    what: "an L2 entry reaches the file before the compressed data that it names",
    mode: "crashes",
    seeds: 300,
    ...order("l2WaitsForCompressed", "return;"),
  },
  "no-l2-before-refcounts": {
    rule: "C3",
    what: "a cluster is free before its drop is durable",
    mode: "crashes",
    seeds: 60,
    quick: true,
    ...order("refcountsWaitForL2", "return;"),
  },
  "no-table-before-l1": {
    rule: "C6",
    what: "an L1 entry reaches the file before its L2 table and that table's refcount",
    mode: "crashes",
    seeds: 60,
    quick: true,
    ...order("l1WaitsForTable", "return;"),
  },
  "no-block-before-refcount-table": {
    rule: "C6",
    what: "the refcount table names a block that is not in the file",
    mode: "crashes",
    seeds: 200,
    quick: true,
    ...order("refcountTableWaitsForBlock", "return;"),
  },
  "no-zeroes-before-size": {
    rule: "C1",
    what: "a disk that grows over a longer backing file shows its bytes after a crash",
    mode: "crashes",
    seeds: 400,
    ...order("sizeWaitsForZeroes", "return;"),
  },
  "no-table-before-header": {
    rule: "C6",
    what: "the header names an L1 table that is not in the file",
    mode: "crashes",
    seeds: 200,
    ...order("headerWaitsForTable", "return;"),
  },
  "flush-without-others": {
    rule: "S8",
    what: "a flush does not wait for compressed clusters that others are writing",
    mode: "crashes",
    seeds: 300,
    module: "@blocklayer/qcow2/writeback/compressed-cache.js",
    find: "await Promise.allSettled(this.#writing);",
    put: "",
  },
  "discard-before-written": {
    rule: "S7",
    what: "the compressed cache forgets a cluster before its write has ended",
    mode: "schedules",
    seeds: 400,
    module: "@blocklayer/qcow2/writeback/compressed-cache.js",
    find: "            const parts = run.map((one) => this.#padded(one));",
    put: `            const parts = run.map((one) => this.#padded(one).slice());
            for (const { token } of run.splice(0)) this.#cache.discard(token);`,
  },
  "lost-data-forgotten": {
    rule: "C17",
    what: "a failed write of compressed data does not fail the node",
    mode: "schedules",
    seeds: 200,
    module: "@blocklayer/qcow2/writeback/compressed-cache.js",
    find: "image.loseData(error);",
    put: "",
  },
  "no-cooling": {
    rule: "D1",
    what: "a cluster is taken again while requests in flight still touch it",
    mode: "schedules",
    seeds: 600,
    module: "@blocklayer/qcow2/refcount/inflight.js",
    find: "if (this.#current.active === 0 && this.#oldest === this.#current) {",
    put: "if (cluster >= 0) {",
  },
  "clean-before-synced": {
    rule: "C17",
    what: "a failed sync is forgotten",
    mode: "crashes",
    seeds: 200,
    quick: true,
    module: "@blocklayer/qcow2/image.js",
    find: `        catch (cause) {
            this.fail(cause);
            throw cause;
        }`,
    put: "        catch { }",
  },
  "waiters-not-woken": {
    rule: "C11",
    what: "who waits for an allocation in flight waits for ever",
    mode: "schedules",
    seeds: 100,
    quick: true,
    module: "@blocklayer/qcow2/mapping/pending.js",
    find: "allocation.waiters.wakeAll();",
    put: "",
  },
  "no-drop-of-free-clusters": {
    rule: "S14",
    what: "the compressed cache keeps what it holds of a cluster that is free",
    mode: "schedules",
    seeds: 100,
    module: "@blocklayer/qcow2/refcount/free.js",
    find: "image.compressedCache?.drop(at);",
    put: "",
    hidden: {
      because:
        "A cluster becomes free in two ways. A reference that was dropped is counted down after the L2 cache was " +
        "flushed under the lock [C3]. Each link of cached data left its slice dirty, behind an edge to the compressed " +
        "cache [S11], so that flush wrote all that was put before, or failed, and then nothing is counted down; and a " +
        "cluster in which more was put since has a reference. Room that was taken is given back at once; after it " +
        "entered the cache that happens only when drawing the edges fails. That does no I/O, since nothing " +
        "that they lead to has edges itself, and the slice was read a moment before, under the same lock. So " +
        "no fault of the disk leads there, and the test has the edge itself fail.",
      file: "format/qcow2/test/compressed-cache.test.ts",
      test: "forget data whose host cluster was given back [S14]",
    },
  },
  "no-wait-for-allocations": {
    rule: "C11",
    what: "a request does not wait for an allocation in flight that it overlaps",
    mode: "schedules",
    seeds: 100,
    quick: true,
    module: "@blocklayer/qcow2/mapping/pending.js",
    find: "        let first;",
    put: "        let first;\n        if (start >= 0) return undefined;",
  },
  "link-before-write": {
    rule: "C10",
    what: "a plain write shows its new clusters before its data is in them",
    mode: "schedules",
    seeds: 100,
    module: "@blocklayer/qcow2/mapping/write.js",
    find: "        const { hostOffset, vector, fileEnd } = await withOldContent(image, chunk, source);",
    put: `        const { hostOffset, vector, fileEnd } = await withOldContent(image, chunk, source);
        const early = await image.lock.acquire();
        for (const one of chunk.allocations.splice(0)) {
            await linkAllocation(image, one);
            image.pending.remove(one);
        }
        early.release();`,
  },
  "taken-clusters-kept": {
    rule: "C10",
    what: "a write that failed keeps the clusters that it took",
    mode: "schedules",
    seeds: 300,
    module: "@blocklayer/qcow2/mapping/allocate.js",
    find: "        if (!one.inPlace)\n            await lowerAfterFailure(image, one.hostOffset, one.lengthBytes);",
    put: "",
  },
  "straddling-tail-kept": {
    rule: "D4",
    what: "a compressed cluster that lies in two host clusters is dropped from the first alone",
    mode: "schedules",
    seeds: 100,
    quick: true,
    module: "@blocklayer/qcow2/mapping/allocate.js",
    find: "frees.note(offset, length, reason, clusterSize);",
    put: "frees.note(offset, Math.min(length, clusterSize - (offset % clusterSize)), reason, clusterSize);",
  },
  "append-to-free-cluster": {
    rule: "D4",
    what: "compressed data is appended in a cluster that was freed, and may be another's by now",
    mode: "schedules",
    seeds: 200,
    module: "@blocklayer/qcow2/refcount/free.js",
    find: "        allocator.compressedCursor = 0;",
    put: "",
  },
  "no-padding-at-close": {
    rule: "D4",
    what: "the file ends within the last sector of compressed data",
    mode: "schedules",
    seeds: 300,
    module: "@blocklayer/qcow2/driver.js",
    find: "if (!wroteCompressed || frozen)",
    put: "if (file !== undefined)",
  },
  "snapshot-table-unsynced": {
    rule: "C13",
    what: "the header names a snapshot table that is not in the file, and refcounts are not raised yet",
    mode: "upkeep-crashes",
    seeds: 60,
    quick: true,
    module: "@blocklayer/qcow2/snapshot/stored-table.js",
    find: "await headerWaitsForTable(image);",
    put: "",
  },
  "snapshot-leaves-copied": {
    rule: "C13",
    what: "what a snapshot shares is still written in place",
    mode: "upkeep-schedules",
    seeds: 60,
    quick: true,
    module: "@blocklayer/qcow2/snapshot/create.js",
    find: "await clearCopiedInL2(image, l1);",
    put: "",
  },
  "snapshot-deleted-late": {
    rule: "C13",
    what: "what a deleted snapshot held is free before the snapshot is gone",
    mode: "upkeep-crashes",
    seeds: 60,
    module: "@blocklayer/qcow2/snapshot/delete.js",
    find: '    await replaceTable(image, table, others);\n    try {\n        await lowerBy(image, references.counters, "snapshot");',
    put: `    await lowerBy(image, references.counters, "snapshot");
    await image.refcounts.flush();
    await replaceTable(image, table, others);
    try {`,
  },
  "apply-unsynced": {
    rule: "C13",
    what: "the disk is that of a snapshot before what it shares is counted",
    mode: "upkeep-crashes",
    seeds: 100,
    module: "@blocklayer/qcow2/snapshot/apply.js",
    find: "await headerWaitsForTable(image);",
    put: "",
  },
  "shrink-drops-first": {
    rule: "C1",
    what: "a shorter disk gives up clusters before its length is durable",
    mode: "upkeep-crashes",
    seeds: 60,
    quick: true,
    module: "@blocklayer/qcow2/mapping/truncate.js",
    find: "    await withLock(image, () => writeSize(image, lengthBytes));\n    image.changeHeader({ virtualSize: lengthBytes });\n    image.bitmaps.resize",
    put: `    await dropPast(image, lengthBytes);
    await flushLocked(image);
    await withLock(image, () => writeSize(image, lengthBytes));
    image.changeHeader({ virtualSize: lengthBytes });
    image.bitmaps.resize`,
  },
  "set-aside-leaves-behind": {
    rule: "C1",
    what: "space that is set aside takes the place of what the old end cuts off",
    mode: "upkeep-schedules",
    seeds: 300,
    module: "@blocklayer/qcow2/mapping/preallocate.js",
    find: "await takeAlong(image, first, start);",
    put: "",
  },
  "bitmap-marked-late": {
    rule: "C1",
    what: "a bitmap that records is not marked as in use before the first write",
    mode: "upkeep-crashes",
    seeds: 100,
    module: "@blocklayer/qcow2/bitmap/bitmaps.js",
    find: "        await this.#image.writeTable(extension.directoryOffset, changed, OVERLAP.bitmapDirectory);\n        await this.#image.sync();",
    put: "        await this.#image.writeTable(extension.directoryOffset, changed, OVERLAP.bitmapDirectory);",
  },
  "bitmaps-named-early": {
    rule: "C6",
    what: "the header names bitmaps that are not in the file",
    mode: "upkeep-crashes",
    seeds: 60,
    quick: true,
    module: "@blocklayer/qcow2/bitmap/store.js",
    find: "await headerWaitsForTable(image);",
    put: "",
  },
  "bitmaps-stored-early": {
    rule: "C1",
    what: "an amended image stores its bitmaps before what was written when they were clean",
    mode: "upkeep-crashes",
    seeds: 200,
    module: "@blocklayer/qcow2/driver.js",
    find: "await flushLocked(old);",
    put: "",
  },
  "header-at-once": {
    rule: "C6",
    what: "a header of several sectors is written at once",
    mode: "upkeep-crashes",
    seeds: 60,
    module: "@blocklayer/qcow2/header/replace-steps.js",
    find: "    if (whole.length <= SECTOR_SIZE_BYTES)",
    put: "    if (whole.length > 0)",
  },
  "amend-header-first": {
    rule: "C6",
    what: "the header names refcounts of another width that are not in the file",
    mode: "upkeep-crashes",
    seeds: 60,
    module: "@blocklayer/qcow2/amend/refcount-width.js",
    find: "    await image.writeTable(table.hostOffset, table.encode(), 0);\n    await image.sync();",
    put: "    await image.writeTable(table.hostOffset, table.encode(), 0);",
  },
  "zeroes-lost-by-version-2": {
    rule: "C1",
    what: "an image becomes one of version 2 before its zero flags are data",
    mode: "upkeep-crashes",
    seeds: 200,
    module: "@blocklayer/qcow2/amend/version.js",
    find: "    await expandZeroes(image, progress, options);\n    await flushLocked(image);\n    await image.sync();",
    put: "    await expandZeroes(image, progress, options);",
  },
  "dirty-bit-late": {
    rule: "C8",
    what: "refcounts are put off in an image that does not say so",
    mode: "upkeep-crashes",
    seeds: 60,
    quick: true,
    module: "@blocklayer/qcow2/writeback/dirty-bit.js",
    find: "    const incompatible = image.header.incompatible | INCOMPATIBLE.dirty;\n    await writeFeatures(image, HEADER_INCOMPATIBLE_POSITION, incompatible);",
    put: "    const incompatible = image.header.incompatible | INCOMPATIBLE.dirty;",
  },
  "clean-before-refcounts": {
    rule: "C8",
    what: "an image is marked as clean before the refcounts that were put off are in the file",
    mode: "upkeep-crashes",
    seeds: 60,
    module: "@blocklayer/qcow2/writeback/dirty-bit.js",
    find: "    await image.refcounts.flush();\n    await image.sync();\n    const incompatible",
    put: "    const incompatible",
  },
  "repair-clean-first": {
    rule: "C8",
    what: "a repair marks an image as clean before it mends it",
    mode: "upkeep-crashes",
    seeds: 60,
    module: "@blocklayer/qcow2/repair/repair.js",
    find: "    const result = options.fix",
    put: "    await repair.clearMarks();\n    const result = options.fix",
  },
  "data-file-unsynced": {
    rule: "C5",
    what: "tables show what is not in the external data file yet",
    mode: "upkeep-crashes",
    seeds: 100,
    module: "@blocklayer/qcow2/image.js",
    find: "await this.externalData?.child.flush();",
    put: "",
  },
  "magic-too-early": {
    rule: "C1",
    what: "a new image has its magic before it is in the file",
    mode: "service-crashes",
    seeds: 60,
    module: "@blocklayer/qcow2/create.js",
    find: "    await file.flush(io);\n    await file.writev(0, IoVector.of(magic), io);",
    put: "    await file.writev(0, IoVector.of(magic), io);",
  },
  "commit-empties-first": {
    rule: "C1",
    what: "an overlay is emptied before its base holds what it held",
    mode: "service-crashes",
    seeds: 20,
    quick: true,
    module: "@blocklayer/image/commit/commit-image.js",
    find: "await writeLayers(layers.toReversed(), target, options);",
    put: `const held = await top.read(0, top.lengthBytes);
            await top.root.driver.makeEmpty();
            await top.flush();
            await target.write(0, held.subarray(0, target.lengthBytes));`,
  },
  "rebase-keeps-nothing": {
    rule: "C1",
    what: "an image is put on another base without what only the old one had",
    mode: "service-crashes",
    seeds: 20,
    module: "@blocklayer/image/rebase/rebase-image.js",
    find: "await keepContent(disk, base, options);",
    put: "",
  },
};

/** Takes the safeguard out of every module that is loaded from here on. */
export function introduceDefect(/** @type {string} */ name) {
  const defect = DEFECTS[name];
  if (defect === undefined) {
    throw new Error(`there is no defect '${name}'; there are: ${Object.keys(DEFECTS).join(", ")}`);
  }
  const url = urlOf(defect.module);
  const source = readFileSync(fileURLToPath(url), "utf8");
  if (source.split(defect.find).length !== 2) {
    throw new Error(
      `defect '${name}': its text is not in ${url} exactly once; bring it up to date`,
    );
  }
  const changed = source.replace(defect.find, () => defect.put);
  register("./defect-hooks.mjs", { parentURL: import.meta.url, data: { url, source: changed } });
}

/** `@scope/package/file.js` is a file of the package's dist. */
function urlOf(module) {
  const [scope, name, ...file] = module.split("/");
  const index = import.meta.resolve(`${scope}/${name}`);
  return new URL(file.join("/"), index).href;
}
