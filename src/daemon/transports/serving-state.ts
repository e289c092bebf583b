const GENERATION = 0
const DEVICE = 1
const PER_WORKER = 3
const BUSY = 2
const SEEN = 3
const REQUESTS = 4

/**
 * Which generation of the mounted tree each serving thread works with, in shared memory. A thread that is not busy will look at the generation before its next
 * request; so once every thread is idle or has seen a generation, nobody uses what an older one held.
 */
export class ServingState {
  readonly words: Int32Array<SharedArrayBuffer>

  constructor(of: number | Int32Array<SharedArrayBuffer>) {
    this.words = typeof of === 'number' ? new Int32Array(new SharedArrayBuffer(4 * (2 + PER_WORKER * of))) : of
  }

  /** Gives the FUSE device to the threads that wait for it. */
  setDevice(fd: number): void {
    Atomics.store(this.words, DEVICE, fd)
    Atomics.notify(this.words, DEVICE)
  }

  /** Blocks a serving thread until there is a device: it can start while the rest is being prepared. */
  waitForDevice(): number {
    Atomics.wait(this.words, DEVICE, 0)
    return Atomics.load(this.words, DEVICE)
  }

  get generation(): number {
    return Atomics.load(this.words, GENERATION)
  }

  /** Announces news; gives their generation. They must be in every thread's port by now. */
  advance(): number {
    return Atomics.add(this.words, GENERATION, 1) + 1
  }

  enter(worker: number): void {
    Atomics.store(this.words, worker * PER_WORKER + BUSY, 1)
  }

  leave(worker: number, seen: number): void {
    Atomics.store(this.words, worker * PER_WORKER + SEEN, seen)
    this.words[worker * PER_WORKER + REQUESTS]++
    Atomics.store(this.words, worker * PER_WORKER + BUSY, 0)
  }

  /** Requests that a thread answered, modulo 2^32. */
  requests(worker: number): number {
    return this.words[worker * PER_WORKER + REQUESTS] >>> 0
  }

  isBusyBefore(worker: number, generation: number): boolean {
    const isBusy = Atomics.load(this.words, worker * PER_WORKER + BUSY) === 1
    return isBusy && Atomics.load(this.words, worker * PER_WORKER + SEEN) < generation
  }
}
