import type { BlobReader } from '../backend/index.ts'

const RUN_BYTES = 4 * 1024 * 1024

/** What a blob has stored, read in runs: small chunks that lie one behind the other come in one go. */
export class StoredRuns {
  readonly #reader: BlobReader
  readonly #signal: AbortSignal
  readonly #onBytes: (bytes: number) => void
  #start = 0
  #bytes = Buffer.alloc(0)
  #size: number | undefined

  /** `onBytes` is told of each run. */
  constructor(reader: BlobReader, signal: AbortSignal, onBytes: (bytes: number) => void = () => undefined) {
    this.#reader = reader
    this.#signal = signal
    this.#onBytes = onBytes
  }

  /** A promise only where a run has to be read; what it gives stays valid. */
  read(offset: number, length: number): Promise<Uint8Array> | Uint8Array {
    const from = offset - this.#start
    if (from >= 0 && from + length <= this.#bytes.length) return this.#bytes.subarray(from, from + length)
    return this.#readRun(offset, length)
  }

  async #readRun(offset: number, length: number): Promise<Uint8Array> {
    this.#size ??= await this.#reader.size(this.#signal)
    const bytes = Buffer.allocUnsafe(Math.max(length, Math.min(RUN_BYTES, this.#size - offset)))
    await this.#reader.read(offset, bytes, { signal: this.#signal })
    this.#onBytes(bytes.length)
    this.#start = offset
    this.#bytes = bytes
    return bytes.subarray(0, length)
  }
}
