/**
 * The references that the metadata makes to host clusters: what the refcounts should be.
 *
 * Above: the walks over L1 tables, L2 tables, snapshots and bitmaps. Below: counters.ts.
 *
 * 1. A reference may reach behind the end of the file by less than a cluster, since the last
 *    cluster of an image need not be whole. Further out it is a corruption and counts nothing: no
 *    memory is taken for what is not there.
 */
import { divideRoundUp, hex } from "@blocklayer/bytes";
import type { Geometry } from "../geometry.js";
import { Counters } from "./counters.js";
import type { Findings } from "./findings.js";

export class References {
  readonly counters: Counters;
  readonly #geometry: Geometry;
  readonly #findings: Findings;
  readonly #fileLengthBytes: number;
  #clusterCount: number;
  /** Some cluster has more references than a refcount can say. */
  hasOverflow = false;
  /** Clusters that lie in the file with all their bytes. */
  readonly wholeClusterCount: number;

  constructor(geometry: Geometry, fileLengthBytes: number, findings: Findings) {
    this.counters = new Counters(geometry);
    this.#geometry = geometry;
    this.#findings = findings;
    this.#fileLengthBytes = fileLengthBytes;
    this.wholeClusterCount = Math.floor(fileLengthBytes / geometry.clusterSize);
    this.#clusterCount = divideRoundUp(fileLengthBytes, geometry.clusterSize);
  }

  /** Clusters of the file, and one more if something refers to it. */
  get clusterCount(): number {
    return this.#clusterCount;
  }

  /** Whether a structure starts within the file, so that there is something to read. */
  contains(hostOffset: number): boolean {
    return hostOffset < this.#fileLengthBytes;
  }

  /**
   * Counts references to one whole cluster, when its counter has room for them.
   *
   * @returns `false` when it has not; nothing was counted
   */
  addCluster(cluster: number, times: number): boolean {
    return this.counters.tryAdd(cluster, times);
  }

  /**
   * Counts a reference to each cluster that a byte range touches.
   *
   * @param times - references made at once
   */
  add(hostOffset: number, lengthBytes: number, times = 1): void {
    if (lengthBytes <= 0) return;
    const { clusterSize } = this.#geometry;
    if (hostOffset + lengthBytes - this.#fileLengthBytes >= clusterSize) {
      const range = `offset ${hex(hostOffset)} size ${hex(lengthBytes)}`;
      const message = "counting reference for region exceeding the end of the file";
      this.#findings.corruption(() => `ERROR: ${message} by one cluster or more: ${range}`, times);
      return;
    }
    const first = Math.floor(hostOffset / clusterSize);
    const last = Math.floor((hostOffset + lengthBytes - 1) / clusterSize);
    for (let cluster = first; cluster <= last; cluster++) this.#addOne(cluster, times);
    if (last >= this.#clusterCount) this.#clusterCount = last + 1;
  }

  #addOne(cluster: number, times: number): void {
    const beyond = this.counters.add(cluster, times);
    if (beyond === 0) return;
    this.hasOverflow = true;
    const offset = hex(cluster * this.#geometry.clusterSize);
    this.#findings.corruption(() => `ERROR: overflow cluster offset=${offset}`, beyond);
  }
}
