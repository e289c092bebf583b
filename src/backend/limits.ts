import type { Backend, BlobReader, ReadOptions } from './backend.ts'
import { abortedRead, BackendError } from './errors.ts'

export interface LimitOptions {
  /** Reads and size questions at once, over all blobs of the backend; the others wait their turn. At least 1. */
  readonly concurrent: number
}

/** Lets only so many requests through at once, first come first served. Who waits can be aborted; `close` ends all waiting with 'CLOSED'. Throws 'BAD_OPTION'. */
export function withLimits(backend: Backend, options: LimitOptions): Backend {
  if (!Number.isSafeInteger(options.concurrent) || options.concurrent < 1)
    throw new BackendError('BAD_OPTION', `cannot limit a backend to ${options.concurrent} requests: give 1 or more`)
  const turns = new Turns(options.concurrent)
  return {
    name: backend.name,
    open: async (blobId) => new LimitedReader(await backend.open(blobId), turns, blobId),
    async close() {
      turns.close()
      await backend.close()
    },
  }
}

class LimitedReader implements BlobReader {
  readonly #inner: BlobReader
  readonly #turns: Turns
  readonly #blobId: string
  readonly #closing = new AbortController()

  constructor(inner: BlobReader, turns: Turns, blobId: string) {
    this.#inner = inner
    this.#turns = turns
    this.#blobId = blobId
  }

  size(signal: AbortSignal): Promise<number> {
    return this.#inTurn(`find the size of blob ${this.#blobId}`, signal, () => this.#inner.size(signal))
  }

  read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    const act = (): Promise<void> => this.#inner.read(compressedOffset, into, options)
    return this.#inTurn(`read blob ${this.#blobId}`, options.signal, act)
  }

  async close(): Promise<void> {
    this.#closing.abort(new BackendError('CLOSED', 'the blob was closed'))
    await this.#inner.close()
  }

  async #inTurn<T>(what: string, signal: AbortSignal, act: () => Promise<T>): Promise<T> {
    const free = this.#turns.takeNow()
    if (!free) await this.#turns.take(what, AbortSignal.any([signal, this.#closing.signal]))
    try {
      return await act()
    } finally {
      this.#turns.give()
    }
  }
}

interface Waiting {
  readonly go: () => void
  readonly refuse: (error: BackendError) => void
  readonly what: string
}

/** A counted set of turns, and the queue for them. */
class Turns {
  #free: number
  #closed = false
  readonly #queue = new Set<Waiting>()

  constructor(count: number) {
    this.#free = count
  }

  takeNow(): boolean {
    if (this.#free === 0) return false
    this.#free -= 1
    return true
  }

  take(what: string, signal: AbortSignal): Promise<void> {
    if (this.#closed) return Promise.reject(closed(what))
    if (signal.aborted) return Promise.reject(abortedRead(what, signal))
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#queue.delete(waiting)
        signal.removeEventListener('abort', onAbort)
      }
      const onAbort = (): void => {
        leave()
        reject(abortedRead(what, signal))
      }
      const waiting: Waiting = {
        what,
        go: () => {
          leave()
          resolve()
        },
        refuse: (error) => {
          leave()
          reject(error)
        },
      }
      this.#queue.add(waiting)
      signal.addEventListener('abort', onAbort)
    })
  }

  /** Hands the turn to who waits longest. */
  give(): void {
    const [next] = this.#queue
    if (next === undefined) this.#free += 1
    else next.go()
  }

  close(): void {
    this.#closed = true
    for (const waiting of this.#queue) waiting.refuse(closed(waiting.what))
  }
}

function closed(what: string): BackendError {
  return new BackendError('CLOSED', `cannot ${what}: the backend was closed`)
}
