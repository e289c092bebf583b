import { createReadStream } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import type { Counters } from './counters.ts'
import type { Fault, RouteName } from './faults.ts'
import { SpecError } from './spec-error.ts'
import type { Throttle } from './throttle.ts'

/** Bytes of a file from `start`, or bytes in memory. */
export type Content =
  | { readonly path: string; readonly start: number; readonly length: number }
  | { readonly bytes: Uint8Array }

export interface ExchangeParts {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly url: URL
  readonly route: RouteName
  readonly fault: Fault | undefined
  readonly counters: Counters
  readonly throttle: Throttle
}

const PIECE_BYTES = 1 << 18
/** With a bandwidth set, small pieces make the flow even. */
const SLOW_PIECE_BYTES = 1 << 14

/** One request and its answer: bodies are counted, slowed down and, on request, spoilt here. */
export class Exchange {
  readonly request: IncomingMessage
  readonly url: URL
  readonly fault: Fault | undefined
  readonly #response: ServerResponse
  readonly #parts: ExchangeParts
  readonly #gone = new AbortController()

  constructor(parts: ExchangeParts) {
    this.#parts = parts
    this.request = parts.request
    this.url = parts.url
    this.fault = parts.fault
    this.#response = parts.response
    parts.response.once('close', () => this.#gone.abort(new Error('the client went away')))
  }

  get method(): string {
    return this.request.method ?? ''
  }

  /** Aborted when the connection is closed. */
  get gone(): AbortSignal {
    return this.#gone.signal
  }

  header(name: string): string | undefined {
    const value = this.request.headers[name]
    return typeof value === 'string' ? value : undefined
  }

  query(name: string): string | undefined {
    return this.url.searchParams.get(name) ?? undefined
  }

  /** The request's body as it comes. */
  async *body(): AsyncGenerator<Buffer, void, undefined> {
    for await (const piece of this.request as AsyncIterable<Buffer>) {
      this.#parts.counters.received(this.#parts.route, piece.length)
      await this.#parts.throttle.pass(piece.length, this.gone)
      yield piece
    }
  }

  /** A body that is to fit into memory; longer is 413. */
  async wholeBody(limit: number): Promise<Buffer> {
    const pieces: Buffer[] = []
    let size = 0
    for await (const piece of this.body()) {
      size += piece.length
      if (size > limit)
        throw new SpecError('SIZE_INVALID', `the body is larger than ${limit} bytes`, {
          status: 413,
          headers: { connection: 'close' },
        })
      pieces.push(piece)
    }
    return Buffer.concat(pieces)
  }

  /** An answer without body. */
  empty(status: number, headers: Readonly<Record<string, string>> = {}): Promise<void> {
    return this.send(status, status === 204 ? headers : { ...headers, 'content-length': '0' }, {
      bytes: new Uint8Array(0),
    })
  }

  json(status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): Promise<void> {
    const bytes = Buffer.from(JSON.stringify(value))
    return this.send(
      status,
      { 'content-type': 'application/json', 'content-length': String(bytes.length), ...headers },
      { bytes },
    )
  }

  error(error: SpecError): Promise<void> {
    const bytes = Buffer.from(error.toBody())
    return this.send(
      error.status,
      { 'content-type': 'application/json', 'content-length': String(bytes.length), ...error.headers },
      { bytes },
    )
  }

  /** `content-length` must be among the headers when there is a body. Resolves when all is handed to the kernel or the client is gone. */
  async send(status: number, headers: Readonly<Record<string, string>>, content: Content): Promise<void> {
    const response = this.#response
    const { fault } = this
    const lying = fault?.kind === 'wrong-length' && headers['content-length'] !== undefined
    const length = Number(headers['content-length'] ?? 0) + (lying ? fault.deltaBytes : 0)
    // A body longer than its header is what we may want to send here: Node is not to check.
    response.strictContentLength = false
    response.writeHead(status, { ...headers, ...(lying ? { 'content-length': String(Math.max(0, length)) } : {}) })
    if (this.method === 'HEAD') {
      response.end()
      return
    }
    try {
      await this.#sendBody(content)
      if (lying) response.socket?.end()
      response.end()
    } catch (error) {
      if (!this.gone.aborted) throw error
    }
  }

  destroy(): void {
    this.request.socket.destroy()
  }

  async #sendBody(content: Content): Promise<void> {
    let sent = 0
    for await (const piece of this.#pieces(content)) {
      const spoilt = this.#spoil(piece, sent)
      const stop = this.#stopAt(sent, spoilt.length)
      const part = stop === undefined ? spoilt : spoilt.subarray(0, stop)
      await this.#write(part)
      sent += part.length
      if (stop === undefined) continue
      await this.#stopped()
      await this.#write(spoilt.subarray(stop))
      sent += spoilt.length - stop
    }
    if (this.fault?.kind === 'stall' && this.fault.afterBytes >= sent && sent === 0) await this.#stopped()
  }

  /** Where in this piece a cut or stall falls. */
  #stopAt(sent: number, length: number): number | undefined {
    const { fault } = this
    if (fault?.kind !== 'cut' && fault?.kind !== 'stall') return undefined
    const at = fault.afterBytes - sent
    return at >= 0 && at < length ? at : undefined
  }

  async #stopped(): Promise<void> {
    const { fault } = this
    if (fault?.kind === 'cut') {
      // What was written is to arrive: end the connection, do not reset it.
      this.request.socket.destroySoon()
      throw new Error('cut on request')
    }
    if (fault?.kind === 'stall') await delay(fault.forMs ?? 2 ** 31 - 1, undefined, { signal: this.gone })
  }

  #spoil(piece: Uint8Array, sent: number): Uint8Array {
    const { fault } = this
    if (fault?.kind !== 'wrong-bytes' || fault.at < sent || fault.at >= sent + piece.length) return piece
    const copy = Uint8Array.from(piece)
    copy[fault.at - sent] = ~(copy[fault.at - sent] ?? 0) & 0xff
    return copy
  }

  async #write(piece: Uint8Array): Promise<void> {
    if (piece.length === 0) return
    this.gone.throwIfAborted()
    await this.#parts.throttle.pass(piece.length, this.gone)
    this.#parts.counters.sent(this.#parts.route, piece.length)
    if (this.#response.write(piece)) return
    await new Promise<void>((resolve, reject) => {
      const settle = (act: () => void) => (): void => {
        this.#response.off('drain', onDrain)
        this.gone.removeEventListener('abort', onGone)
        act()
      }
      const onDrain = settle(resolve)
      const onGone = settle(() => reject(new Error('the client went away')))
      this.#response.once('drain', onDrain)
      this.gone.addEventListener('abort', onGone, { once: true })
    })
  }

  #pieces(content: Content): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
    const slow = this.#parts.throttle.bytesPerSecond !== undefined
    const highWaterMark = slow ? SLOW_PIECE_BYTES : PIECE_BYTES
    if ('path' in content) {
      const { path, start, length } = content
      return length === 0 ? [] : createReadStream(path, { start, end: start + length - 1, highWaterMark })
    }
    return slow ? slices(content.bytes, highWaterMark) : [content.bytes]
  }
}

function* slices(bytes: Uint8Array, size: number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}
