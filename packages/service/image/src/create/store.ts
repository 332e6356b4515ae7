/** Byte stores as creation sees them: make, open without a graph, take away again. */
import { BlockError, hasCode, UnsupportedError } from "@blocklayer/bytes";
import {
  type BlockDriver,
  type DriverDefinition,
  type OptionValues,
  parseOptions,
  PERMISSION,
  type Permissions,
} from "@blocklayer/block-api";
import type { NodeOptions } from "@blocklayer/block-graph";
import { nameOfOptions } from "../open/filename.js";

/** Who makes an image writes it alone. */
const CREATOR: Permissions = {
  held: PERMISSION.consistentRead | PERMISSION.write | PERMISSION.resize,
  shared: PERMISSION.consistentRead,
};
/** Looking whether something is there disturbs nobody. */
const ONLOOKER: Permissions = { held: 0, shared: 15 };

export class Store {
  readonly definition: DriverDefinition;
  readonly options: NodeOptions;
  readonly filename: string;

  /** @throws BlockError when the options name no protocol driver */
  constructor(options: NodeOptions, drivers: readonly DriverDefinition[]) {
    const definition = drivers.find((driver) => driver.name === options.driver);
    if (definition === undefined || definition.kind !== "protocol") {
      throw new BlockError("EINVAL", `'${String(options.driver)}' is no protocol to create with`);
    }
    this.definition = definition;
    this.options = options;
    this.filename = nameOfOptions(options);
  }

  /** Makes the store, or empties the one that is there. */
  async make(options: OptionValues, signal: AbortSignal | undefined): Promise<void> {
    const { definition, filename } = this;
    if (definition.createFile === undefined) {
      throw new UnsupportedError(`protocol '${definition.name}' cannot create '${filename}'`);
    }
    const context = { filename, options };
    await definition.createFile(signal === undefined ? context : { ...context, signal });
  }

  /** Whether there is something of that name. */
  async exists(): Promise<boolean> {
    try {
      const driver = await this.open(true, ONLOOKER);
      await driver.close();
      return true;
    } catch (error) {
      if (hasCode(error, "ENOENT")) return false;
      // Something is there that cannot be opened.
      return true;
    }
  }

  async open(readOnly: boolean, permissions: Permissions = CREATOR): Promise<BlockDriver> {
    const { driver: _driver, ...rest } = this.options;
    return await this.definition.open({
      nodeName: this.filename,
      readOnly,
      options: parseOptions(this.definition.openOptions, rest, this.definition.name),
      permissions,
      children: {},
      openBacking: () => undefined,
    });
  }

  /** Takes the store away. `false`: its protocol cannot, or it failed; it is still there. */
  async remove(): Promise<boolean> {
    if (this.definition.removeFile === undefined) return false;
    try {
      await this.definition.removeFile(this.filename);
      return true;
    } catch {
      return false;
    }
  }
}
