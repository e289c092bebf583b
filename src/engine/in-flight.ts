import type { ChunkSpan } from '../rafs/index.ts'
import type { EngineError } from './errors.ts'

/** What one read wants of one chunk. */
export interface ChunkPart {
  readonly blobIndex: number
  readonly chunk: number
  /** Where the chunk starts in the blob's uncompressed address space. */
  readonly chunkOffset: number
  /** First wanted byte, from the chunk's start; how many; and where in the reader's buffer they go. */
  readonly offsetInChunk: number
  readonly length: number
  readonly at: number
}

/** The parts of a read that fills its buffer with these spans, one after another. */
export function partsOf(spans: readonly ChunkSpan[], count: number): ChunkPart[] {
  let at = 0
  return spans.slice(0, count).map(({ blobIndex, chunkIndex, chunkOffset, offsetInChunk, length }) => {
    const part = { blobIndex, chunk: chunkIndex, chunkOffset, offsetInChunk, length, at }
    at += length
    return part
  })
}

/** A read under way. When it is over, nobody writes into its buffer any more. */
export interface ActiveRead {
  readonly into: Uint8Array
  isOver: boolean
}

interface Waiter {
  readonly read: ActiveRead
  readonly part: ChunkPart
  readonly resolve: () => void
  readonly reject: (error: EngineError) => void
}

/** A chunk that is being had, and all who wait for it. It is fetched once, however many they are. */
export class InFlightChunk {
  readonly chunk: number
  readonly #waiters: Waiter[] = []
  /** The plain bytes, from their verification until they are kept. */
  #bytes: Uint8Array | undefined
  readonly #onWait: (() => void) | undefined

  /** `onWait`: somebody waits for it, for whom it was not asked for; each time. */
  constructor(chunk: number, onWait?: () => void) {
    this.chunk = chunk
    this.#onWait = onWait
  }

  get isAwaited(): boolean {
    return this.#waiters.length > 0
  }

  /** Settles when the chunk is verified and kept, and its part is in the reader's buffer. */
  wait(read: ActiveRead, part: ChunkPart): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter = { read, part, resolve, reject }
    if (this.#bytes !== undefined) copyPart(this.#bytes, waiter)
    this.#waiters.push(waiter)
    this.#onWait?.()
    return promise
  }

  /** The verified bytes are there; they stay until `done`. */
  arrived(bytes: Uint8Array): void {
    this.#bytes = bytes
    for (const waiter of this.#waiters) copyPart(bytes, waiter)
  }

  done(): void {
    this.#bytes = undefined
    for (const { resolve } of this.#waiters.splice(0)) resolve()
  }

  fail(error: EngineError): void {
    this.#bytes = undefined
    for (const { reject } of this.#waiters.splice(0)) reject(error)
  }
}

function copyPart(bytes: Uint8Array, { read, part }: Waiter): void {
  if (!read.isOver) read.into.set(bytes.subarray(part.offsetInChunk, part.offsetInChunk + part.length), part.at)
}
