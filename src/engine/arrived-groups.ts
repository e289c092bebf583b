import type { ChunkInfo } from '../blob/index.ts'
import type { DecodeChunk } from './decode-task.ts'

/** Chunks decoded in one task, plain bytes: enough to be worth a message, few enough to let the threads share the work. */
const TASK_BYTES = 256 * 1024
/** Images may have chunks of a byte each; so many are a task too. */
const TASK_CHUNKS = 256

/** A chunk of an answer that is coming. */
export interface Arriving {
  readonly info: ChunkInfo
  readonly task: DecodeChunk
  /** Byte of the range after which the chunk is complete. */
  readonly end: number
}

/**
 * Makes tasks of the chunks of an answer while it comes. A chunk that somebody waits for goes at once, before those that came with it; the others wait until there are enough for a task,
 * or no more come: an answer of many small chunks would keep the threads busy with messages.
 */
export class ArrivedGroups {
  readonly #chunks: readonly Arriving[]
  readonly #isAwaited: (chunk: number) => boolean
  readonly #isWhole: boolean
  /** Chunks before it are in a task; those before `#arrived` have come. */
  #next = 0
  #arrived = 0

  /** `chunks` in the order in which they come. `isWhole`: they are decoded together. */
  constructor(chunks: readonly Arriving[], isAwaited: (chunk: number) => boolean, isWhole: boolean) {
    this.#chunks = chunks
    this.#isAwaited = isAwaited
    this.#isWhole = isWhole
  }

  /** The tasks that may be done when so many bytes of the answer have come, the first first. */
  after(filled: number): Array<readonly Arriving[]> {
    const chunks = this.#chunks
    while (this.#arrived < chunks.length && (chunks[this.#arrived]?.end ?? Infinity) <= filled) this.#arrived += 1
    if (this.#isWhole) return this.#arrived < chunks.length ? [] : this.#upTo(chunks.length)
    const groups: Array<readonly Arriving[]> = []
    for (let at = this.#next; at < this.#arrived; at += 1) {
      if (!this.#isAwaited(chunks[at].info.index)) continue
      // Chunks of a batch are decoded together, which those before it may be part of.
      if (chunks[at].task.batchSize === 0) {
        const awaited = chunks.slice(at, at + 1)
        const before = this.#upTo(at)
        this.#next = at + 1
        groups.push(awaited, ...before)
      } else groups.push(...this.#upTo(at + 1))
    }
    const isLast = this.#arrived === chunks.length
    while (this.#next < this.#arrived) {
      const { group, isFull } = this.#group(this.#next, this.#arrived)
      if (!isFull && !isLast) break
      this.#next += group.length
      groups.push(group)
    }
    return groups
  }

  /** What has come and is in no task yet: nothing more comes. */
  rest(): Array<readonly Arriving[]> {
    return this.#isWhole ? [] : this.#upTo(this.#arrived)
  }

  /** Tasks of all chunks before this one that are in none. */
  #upTo(end: number): Array<readonly Arriving[]> {
    const groups: Array<readonly Arriving[]> = []
    while (this.#next < end) {
      const { group } = this.#group(this.#next, end)
      this.#next += group.length
      groups.push(group)
    }
    return groups
  }

  /** Chunks from `first` on, as many as make a task; `isFull`: it would not take the next one. */
  #group(first: number, end: number): { readonly group: readonly Arriving[]; readonly isFull: boolean } {
    const chunks = this.#chunks
    let bytes = chunks[first].task.plainSize
    let last = first
    for (; last + 1 < end; last += 1) {
      const [one, next] = [chunks[last].task, chunks[last + 1].task]
      // A batch is decoded once for all its chunks.
      const isSameBatch = next.storedAt === one.storedAt && next.batchSize > 0
      const isEnough = bytes + next.plainSize > TASK_BYTES || last + 1 - first >= TASK_CHUNKS
      if (isEnough && !isSameBatch && !this.#isWhole) break
      bytes += next.plainSize
    }
    return {
      group: chunks.slice(first, last + 1),
      isFull: last + 1 < end || bytes >= TASK_BYTES || last + 1 - first >= TASK_CHUNKS,
    }
  }
}
