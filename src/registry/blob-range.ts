import { contentLength, parseContentRange, refuseEncoding } from './content-range.ts'
import { RegistryError } from './errors.ts'
import type { BodySink, HttpHeaders } from './http.ts'
import { withoutRetry } from './retry.ts'

/** A server that ignores Range sends the blob from its start: so much is thrown away at most before it is refused. */
export const MAX_SKIP_BYTES = 1 << 20

/** The caller's buffer while it is filled, over as many answers as it takes. Strict: an answer that does not fit the question is refused. */
export class RangeFill {
  filled = 0
  readonly #into: Uint8Array
  readonly #offset: number
  readonly #what: string
  readonly #onFilled: ((filled: number) => void) | undefined
  /** Bytes of the present answer still to throw away. */
  #skip = 0

  constructor(parts: {
    into: Uint8Array
    offset: number
    what: string
    onFilled: ((filled: number) => void) | undefined
  }) {
    this.#into = parts.into
    this.#offset = parts.offset
    this.#what = parts.what
    this.#onFilled = parts.onFilled
  }

  get done(): boolean {
    return this.filled === this.#into.length
  }

  /** Range header for what is missing. */
  get range(): string {
    return `bytes=${this.#start}-${this.#end}`
  }

  /** The sink for an answer that has what is missing; undefined for an error answer. Throws for a lie. */
  accept(status: number, headers: HttpHeaders): BodySink | undefined {
    if (status === 416) throw this.#beyondEnd('answered 416')
    if (status !== 206 && status !== 200) return undefined
    refuseEncoding(headers, this.#what)
    if (status === 206) this.#acceptPart(headers)
    else this.#acceptWhole(headers)
    return (bytes) => this.#take(bytes)
  }

  /** After the last byte of an answer. */
  ended(): void {
    if (this.done) return
    throw new RegistryError(
      'TRUNCATED',
      `cannot ${this.#what}: the body ended after ${this.filled} of ${this.#into.length} bytes`,
    )
  }

  get #start(): number {
    return this.#offset + this.filled
  }

  get #end(): number {
    return this.#offset + this.#into.length - 1
  }

  #acceptPart(headers: HttpHeaders): void {
    const range = parseContentRange(headers['content-range'])
    if (range === undefined)
      throw this.#lie(`206 with Content-Range ${JSON.stringify(headers['content-range'] ?? null)}`)
    if (
      range.start === this.#start &&
      range.total !== undefined &&
      range.end === range.total - 1 &&
      range.end < this.#end
    ) {
      throw this.#beyondEnd(`has ${range.total} bytes`)
    }
    if (range.start !== this.#start || range.end !== this.#end) throw this.#lie(`bytes ${range.start}-${range.end}`)
    const length = contentLength(headers, this.#what)
    const wanted = range.end - range.start + 1
    if (length !== undefined && length !== wanted) throw this.#lie(`Content-Length ${length} for ${wanted} bytes`)
    this.#skip = 0
  }

  #acceptWhole(headers: HttpHeaders): void {
    const length = contentLength(headers, this.#what)
    if (length !== undefined && length <= this.#end) throw this.#beyondEnd(`has ${length} bytes`)
    if (this.#start > MAX_SKIP_BYTES) {
      throw new RegistryError(
        'UNSUPPORTED',
        `cannot ${this.#what}: the server ignores Range, and ${this.#start} bytes stand before; use a server that serves ranges`,
      )
    }
    this.#skip = this.#start
  }

  #take(bytes: Uint8Array): boolean {
    const skipped = Math.min(this.#skip, bytes.length)
    this.#skip -= skipped
    const room = this.#into.length - this.filled
    const fresh = bytes.length - skipped
    if (fresh === 0) return true
    const taken = Math.min(fresh, room)
    this.#into.set(taken === bytes.length ? bytes : bytes.subarray(skipped, skipped + taken), this.filled)
    this.filled += taken
    if (taken > 0) this.#onFilled?.(this.filled)
    return fresh <= room
  }

  #beyondEnd(found: string): RegistryError {
    return withoutRetry(
      new RegistryError('TRUNCATED', `cannot ${this.#what}: the range ends at ${this.#end + 1}, but the blob ${found}`),
    )
  }

  #lie(found: string): RegistryError {
    return new RegistryError(
      'BAD_RESPONSE',
      `cannot ${this.#what}: asked for bytes ${this.#start}-${this.#end}, the server answered ${found}`,
    )
  }
}
