/**
 * Worker threads that compress and decompress.
 *
 * Above: NodeCodec. Below: node:worker_threads, worker-source.
 *
 * 1. A thread starts when a job finds all others busy, up to `threads`. Where the system has no more threads, those
 *    that run do all the work; where none runs, jobs fail.
 * 2. A worker has at most two jobs: one that it does and one that waits at its door, so that it never
 *    waits for this thread. Further jobs queue here and go to whoever is free next.
 * 3. A job ends exactly once. One whose worker died ends only when the thread is gone, so that nobody
 *    writes into its memory any more.
 * 4. Idle workers do not keep the process alive; busy ones do.
 */
import { SHARE_ENV, Worker } from "node:worker_threads";
import { BlockError } from "@blocklayer/bytes";
import { WORKER_SOURCE, type WorkerReply, type WorkerRequest } from "./worker-source.js";
import { handlesAreProven } from "./zlib-handle.js";

/** One that is done and one that waits. */
const MAX_JOBS_PER_WORKER = 2;
/** What a worker holds besides this are a few clusters outside the heap. */
const RESOURCE_LIMITS = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2, stackSizeMb: 1 };

/** A piece of work for one worker. */
export interface Job {
  /** Called when a worker is free: makes the message and what memory it needs. */
  prepare(): Omit<WorkerRequest, "id">;
  /** Exactly one of these two is called, once. */
  finish(reply: WorkerReply): void;
  fail(error: BlockError): void;
}

/** A thread and what it was given. */
interface Crew {
  readonly worker: Worker;
  readonly jobs: Map<number, Job>;
  crash: unknown;
}

export class WorkerPool {
  readonly threads: number;
  readonly #crews: Crew[] = [];
  /** As long as the batches that callers wait for. */
  readonly #queue: Job[] = [];
  readonly #source: string;
  readonly #usesHandle: boolean;
  #nextId = 0;
  /** Why the last thread that was wanted did not come to be. */
  #startFailure: unknown;

  /**
   * @param source - the workers' program; tests give one that dies
   * @param usesHandle - whether it may use what zlib-handle proved; tests say no
   */
  constructor(
    threads: number,
    source: string = WORKER_SOURCE,
    usesHandle: boolean = handlesAreProven(),
  ) {
    this.threads = threads;
    this.#source = source;
    this.#usesHandle = usesHandle;
  }

  /** Hands a job to a worker, now or when one is free. */
  submit(job: Job): void {
    this.#queue.push(job);
    this.#dispatch();
  }

  /** Ends the threads. Requires: no job is under way. */
  async close(): Promise<void> {
    await Promise.all(this.#crews.map((crew) => crew.worker.terminate()));
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const crew = this.#freeCrew();
      if (crew !== undefined) this.#give(crew, this.#queue.shift() as Job);
      else if (this.#crews.length > 0) return;
      else this.#queue.shift()?.fail(workerError("cannot start", this.#startFailure));
    }
  }

  #freeCrew(): Crew | undefined {
    let best: Crew | undefined;
    for (const crew of this.#crews) {
      if (best === undefined || crew.jobs.size < best.jobs.size) best = crew;
    }
    if (best !== undefined && best.jobs.size === 0) return best;
    const started = this.#crews.length < this.threads ? this.#tryToStart() : undefined;
    if (started !== undefined) return started;
    return best !== undefined && best.jobs.size < MAX_JOBS_PER_WORKER ? best : undefined;
  }

  #give(crew: Crew, job: Job): void {
    const id = this.#nextId++;
    crew.jobs.set(id, job);
    if (crew.jobs.size === 1) crew.worker.ref();
    try {
      crew.worker.postMessage({ ...job.prepare(), id } satisfies WorkerRequest);
    } catch (error) {
      this.#take(crew, id);
      job.fail(workerError("cannot be reached", error));
    }
  }

  #take(crew: Crew, id: number): Job | undefined {
    const job = crew.jobs.get(id);
    crew.jobs.delete(id);
    if (crew.jobs.size === 0) crew.worker.unref();
    return job;
  }

  #tryToStart(): Crew | undefined {
    try {
      return this.#start();
    } catch (error) {
      this.#startFailure = error;
      return undefined;
    }
  }

  #start(): Crew {
    const worker = new Worker(this.#source, {
      eval: true,
      name: "blocklayer-codec",
      workerData: { usesHandle: this.#usesHandle },
      // The options of this process (loaders, inspectors) are not for a program of 100 lines.
      execArgv: [],
      env: SHARE_ENV,
      resourceLimits: RESOURCE_LIMITS,
      trackUnmanagedFds: false,
    });
    const crew: Crew = { worker, jobs: new Map(), crash: undefined };
    worker.on("message", (reply: WorkerReply) => this.#reply(crew, reply));
    worker.on("error", (error: unknown) => {
      crew.crash = error;
    });
    worker.on("exit", () => this.#ended(crew));
    worker.unref();
    this.#crews.push(crew);
    return crew;
  }

  #reply(crew: Crew, reply: WorkerReply): void {
    const job = this.#take(crew, reply.id);
    // First the next job, so that the worker is busy while the answer is dealt with.
    this.#dispatch();
    if (job === undefined) return;
    if (reply.error === undefined) job.finish(reply);
    else job.fail(workerError(`failed: ${reply.error}`));
  }

  #ended(crew: Crew): void {
    this.#crews.splice(this.#crews.indexOf(crew), 1);
    for (const job of crew.jobs.values()) job.fail(workerError("ended unexpectedly", crew.crash));
    crew.jobs.clear();
    this.#dispatch();
  }
}

function workerError(what: string, cause?: unknown): BlockError {
  const message = `codec worker thread ${what}`;
  return new BlockError("EIO", message, cause === undefined ? {} : { cause });
}
