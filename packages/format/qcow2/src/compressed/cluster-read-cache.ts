/**
 * The last decompressed clusters: for readers that go through one in small steps.
 *
 * Above: compressed/read.ts. Below: nothing.
 *
 * 1. Bounded in bytes; at least two clusters.
 * 2. Keyed by where the compressed data lies. The same place can hold other data only after its old
 *    owner was dropped, and `invalidate` is called with every drop: it also turns away results that
 *    were on their way at that moment.
 * 3. Several readers of one cluster share one decompression.
 */
import type { HostOffset } from "../geometry.js";

const MAX_BYTES = 2 ** 22;
const MAX_CLUSTERS = 32;

interface CachedCluster {
  readonly key: HostOffset;
  bytes: Uint8Array | undefined;
  loading: Promise<Uint8Array> | undefined;
}

export class ClusterReadCache {
  readonly #capacity: number;
  /** Newest last. */
  #clusters: CachedCluster[] = [];

  constructor(clusterSize: number) {
    this.#capacity = Math.max(2, Math.min(MAX_CLUSTERS, Math.floor(MAX_BYTES / clusterSize)));
  }

  /** The cluster, if its decompression has ended. */
  peek(key: HostOffset): Uint8Array | undefined {
    return this.#find(key)?.bytes;
  }

  /** The decompression of a cluster that is on its way. */
  loading(key: HostOffset): Promise<Uint8Array> | undefined {
    return this.#find(key)?.loading;
  }

  /** Keeps a cluster that is being decompressed. A failure is not kept. */
  putLoading(key: HostOffset, loading: Promise<Uint8Array>): void {
    const cluster: CachedCluster = { key, bytes: undefined, loading };
    this.#insert(cluster);
    loading.then(
      (bytes) => {
        cluster.bytes = bytes;
        cluster.loading = undefined;
      },
      () => {
        this.#clusters = this.#clusters.filter((one) => one !== cluster);
      },
    );
  }

  /** Forgets all. */
  invalidate(): void {
    this.#clusters = [];
  }

  #find(key: HostOffset): CachedCluster | undefined {
    const clusters = this.#clusters;
    for (let i = clusters.length - 1; i >= 0; i--) {
      const one = clusters[i] as CachedCluster;
      if (one.key === key) return one;
    }
    return undefined;
  }

  #insert(cluster: CachedCluster): void {
    this.#clusters.push(cluster);
    if (this.#clusters.length > this.#capacity) this.#clusters.shift();
  }
}
