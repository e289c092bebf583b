import { type Sha256Stream, sha256Stream } from '../codec/index.ts'

const BUFFER_BYTES = 1024 * 1024
/** Runs of lent bytes from here on are passed on as they are; smaller ones cost less when they are gathered. */
const RUN_BYTES = 256 * 1024

/** Takes the blob's bytes in order; `bytes` is valid until the promise settles. */
export type BlobSink = (bytes: Uint8Array) => Promise<void> | void

/** Gathers pieces for a sink, which is called about once a MiB, and hashes what it takes at the same time. One call at a time; the sink's errors come with a later one. */
export class HashedSink {
  readonly #sink: BlobSink
  readonly #hash: Sha256Stream = sha256Stream()
  /** One is filled while the other is in the sink. */
  #buffer = Buffer.allocUnsafe(BUFFER_BYTES)
  #spare = Buffer.allocUnsafe(BUFFER_BYTES)
  #sinking: Promise<void> | undefined
  #buffered = 0
  #size = 0
  /** The last lent bytes that the sink was given as they are, until {@link takeLent}. */
  #lent: Promise<void> | undefined
  /** What was lent last and follows each other in memory. */
  #run: { readonly buffer: ArrayBufferLike; readonly start: number; end: number } | undefined

  constructor(sink: BlobSink) {
    this.#sink = sink
  }

  /** Bytes so far. */
  get size(): number {
    return this.#size
  }

  /** `bytes` are valid until the promise settles; without one they were copied. */
  write(bytes: Uint8Array): Promise<void> | void {
    this.#size += bytes.length
    const ending = this.#endRun()
    return ending === undefined ? this.#gather(bytes) : ending.then(() => this.#gather(bytes))
  }

  /** As {@link write}, but `bytes` are valid until {@link takeLent} settles: what follows each other in memory goes to the sink as it is, in one piece. */
  lend(bytes: Uint8Array): Promise<void> | void {
    this.#size += bytes.length
    const { buffer, byteOffset: start } = bytes
    const end = start + bytes.length
    if (this.#run?.buffer === buffer && this.#run.end === start) {
      this.#run.end = end
      return
    }
    const ending = this.#endRun()
    this.#run = { buffer, start, end }
    return ending
  }

  /** Nothing that was lent is needed any more. The sink's errors come with it. */
  takeLent(): Promise<void> | void {
    const ending = this.#endRun()
    if (ending !== undefined || this.#lent !== undefined) return this.#waitForLent(ending)
  }

  async #waitForLent(ending: Promise<void> | void): Promise<void> {
    await ending
    await this.#lent
    this.#lent = undefined
  }

  /** Hands the run on, or copies it; `#lent` is over when the sink has it. */
  #endRun(): Promise<void> | void {
    const run = this.#run
    this.#run = undefined
    if (run === undefined) return
    const bytes = new Uint8Array(run.buffer, run.start, run.end - run.start)
    return bytes.length < RUN_BYTES ? this.#gather(bytes) : this.#passRun(bytes)
  }

  async #passRun(bytes: Uint8Array): Promise<void> {
    await this.#flush()
    await this.#sinking
    this.#lent = this.#sinking = this.#pass(bytes)
    this.#sinking.catch(() => undefined)
  }

  #gather(bytes: Uint8Array): Promise<void> | void {
    if (this.#buffered + bytes.length > BUFFER_BYTES) return this.#flushThen(bytes)
    this.#buffer.set(bytes, this.#buffered)
    this.#buffered += bytes.length
  }

  /** Bytes that are in the blob, and not in its digest. */
  async writeApart(bytes: Uint8Array): Promise<void> {
    await this.#settle()
    this.#size += bytes.length
    await this.#sink(bytes)
  }

  /** SHA-256 of all so far, which is in the sink then; more may follow. */
  async digest(): Promise<Buffer> {
    await this.#settle()
    return this.#hash.digest()
  }

  async #flushThen(bytes: Uint8Array): Promise<void> {
    await this.#flush()
    if (bytes.length >= BUFFER_BYTES) {
      await this.#sinking
      await this.#pass(bytes)
      return
    }
    this.#buffer.set(bytes)
    this.#buffered = bytes.length
  }

  /** Hands the buffer to the sink, which has the one before taken then; its errors come with the next flush. */
  async #flush(): Promise<void> {
    await this.#sinking
    const length = this.#buffered
    if (length === 0) return
    ;[this.#buffer, this.#spare, this.#buffered] = [this.#spare, this.#buffer, 0]
    this.#sinking = this.#pass(this.#spare.subarray(0, length))
    this.#sinking.catch(() => undefined)
  }

  /** All that was written is in the sink, and hashed. */
  async #settle(): Promise<void> {
    await this.#endRun()
    await this.#flush()
    await this.#sinking
  }

  async #pass(bytes: Uint8Array): Promise<void> {
    await Promise.all([this.#hash.update(bytes), this.#sink(bytes)])
  }
}
