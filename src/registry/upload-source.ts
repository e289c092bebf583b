import { RegistryError } from './errors.ts'
import type { BlobSource } from './repository.ts'

/** Opens a blob's source for one try and remembers when the failure was the source's own, which no retry of the network cures. */
export class WatchedSource {
  failure: { readonly error: unknown } | undefined
  readonly #blob: BlobSource
  readonly #onProgress: ((sentBytes: number) => void) | undefined

  constructor(blob: BlobSource, onProgress: ((sentBytes: number) => void) | undefined) {
    this.#blob = blob
    this.#onProgress = onProgress
  }

  async *open(): AsyncGenerator<Uint8Array, void, undefined> {
    const { digest, size } = this.#blob
    let sent = 0
    const source = this.#read()
    for await (const bytes of source) {
      sent += bytes.length
      if (sent > size) break
      yield bytes
      this.#onProgress?.(sent)
    }
    if (sent === size) return
    const error = new RegistryError(
      'DIGEST_MISMATCH',
      `cannot upload blob ${digest}: its source gave ${sent > size ? 'more than' : 'only'} ${Math.min(sent, size)} bytes, wanted ${size}`,
    )
    this.failure = { error }
    throw error
  }

  async *#read(): AsyncGenerator<Uint8Array, void, undefined> {
    const source = this.#blob.open()[Symbol.asyncIterator]()
    let ended = false
    try {
      for (;;) {
        const next = await this.#guard(source.next())
        if (next.done === true) {
          ended = true
          return
        }
        yield next.value
      }
    } finally {
      if (!ended && this.failure === undefined) await source.return?.()
    }
  }

  async #guard<T>(step: Promise<T>): Promise<T> {
    try {
      return await step
    } catch (error) {
      this.failure = { error }
      throw error
    }
  }
}

/** Pieces of exactly `size` bytes, but for the last. Each is the receiver's until it asks for the next: the buffer is used again. */
export async function* gather(
  source: AsyncIterable<Uint8Array>,
  size: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const buffer = Buffer.allocUnsafeSlow(size)
  let filled = 0
  for await (const bytes of source) {
    let at = 0
    while (at < bytes.length) {
      const taken = Math.min(size - filled, bytes.length - at)
      buffer.set(bytes.subarray(at, at + taken), filled)
      filled += taken
      at += taken
      if (filled < size) continue
      yield buffer
      filled = 0
    }
  }
  if (filled > 0) yield buffer.subarray(0, filled)
}
