/** The conformance suite, through a child handle of the graph instead of the driver itself. */
import { assert, type MaybePromise } from "@blocklayer/bytes";
import type {
  BlockChild,
  BlockDriver,
  DriverDefinition,
  ReopenRequest,
} from "@blocklayer/block-api";
import { type DriverSource, driverSuite } from "@blocklayer/conformance";
import { openMemory } from "@blocklayer/memory";
import { type BlockBackend, BlockGraph } from "../src/index.js";
import { PassDriver } from "./pass-driver.js";

/** The same from outside: its flush and its close are those of the graph. */
class OuterDriver extends PassDriver {
  readonly #graph: BlockGraph;
  readonly #disk: BlockBackend;

  constructor(child: BlockChild, graph: BlockGraph, disk: BlockBackend) {
    super(child);
    this.#graph = graph;
    this.#disk = disk;
  }

  override reopen({ readOnly }: ReopenRequest): Promise<void> {
    return this.#graph.reopen(this.#disk, { readOnly });
  }

  override flushToOs(): MaybePromise<void> {
    return this.#disk.root.flush();
  }

  override close(): MaybePromise<void> {
    return this.#disk.close();
  }
}

const PERMISSIONS = { held: 11, shared: 15 };

async function openThroughGraph(
  lengthBytes: number,
  requestAlignment: number,
): Promise<BlockDriver> {
  const store: DriverDefinition = {
    name: "store",
    kind: "protocol",
    openOptions: {},
    open: () => openMemory({ lengthBytes, limits: { requestAlignment } }),
  };
  let handle: BlockChild | undefined;
  const pass: DriverDefinition = {
    name: "pass",
    kind: "filter",
    openOptions: {},
    open({ children }) {
      handle = children.filtered;
      assert(handle !== undefined, "a filter has a child");
      return new PassDriver(handle);
    },
  };
  const graph = new BlockGraph({ drivers: [store, pass] });
  const disk = await graph.open(
    { driver: "pass", file: { driver: "store" } },
    { permissions: PERMISSIONS },
  );
  assert(handle !== undefined, "the filter is open");
  return new OuterDriver(handle, graph, disk);
}

function source(name: string, requestAlignment: number): DriverSource {
  return {
    name,
    open: (lengthBytes) => openThroughGraph(lengthBytes, requestAlignment),
    growsPastEnd: true,
    synchronous: true,
  };
}

driverSuite(source("a child handle", 1));
driverSuite(source("a child handle of a 512-byte device", 512));
