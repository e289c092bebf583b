import { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { abortable } from './abortable.ts'
import type { HttpOptions } from './agents.ts'
import { openAgent, openPeerAgent, openProxyAgent } from './agents.ts'
import { RegistryError } from './errors.ts'
import type { Exchange, Route } from './forward-proxy.ts'
import { ForwardProxy } from './forward-proxy.ts'
import { isProxyRefusal } from './proxy-refusal.ts'
import { SYSTEM_CLOCK } from './retry.ts'
import { abortError, wireError } from './wire-error.ts'

export type HttpHeaders = Readonly<Record<string, string | string[] | undefined>>

/** One request on the wire. */
export interface HttpRequest {
  readonly method: string
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>
  readonly signal: AbortSignal
  /** Given: the request may go through the proxy, if there is one. */
  readonly route?: Route | undefined
}

/** One answer. Exactly one of `body` (not read yet) and `text` (read, capped) has the content. */
export interface HttpAnswer {
  readonly status: number
  readonly headers: HttpHeaders
  /** Reads the rest, at most `limit` bytes; longer is 'BAD_RESPONSE'. */
  bytes(limit: number): Promise<Uint8Array>
  /** The start of an error body, for its message. Never throws. */
  errorText(): Promise<string>
  /** The body as it comes. Closing the iterator early closes the connection. */
  stream(): AsyncIterable<Uint8Array>
  /** Lets go of a body that nobody wants. */
  discard(): void
}

/** Takes the body of an accepted answer as it comes, in the socket's own buffers: they are the socket's again when it returns. False: enough. */
export type BodySink = (bytes: Uint8Array) => boolean

const MAX_ERROR_BYTES = 65_536
/** A body that nobody wants is read to its end when it is shorter than this, so that the connection can be used again. */
const MAX_DRAIN_BYTES = 131_072

/** Plain exchanges of requests and answers: no logins, no redirects, no retries. undici's errors become RegistryError. */
export class Http {
  readonly #options: HttpOptions
  readonly #proxy: ForwardProxy | undefined
  #agent: Promise<Dispatcher> | undefined
  #closed = false

  constructor(options: HttpOptions) {
    this.#options = options
    const { proxy, clock = SYSTEM_CLOCK } = options
    if (proxy === undefined) return
    this.#proxy = new ForwardProxy(proxy, {
      clock,
      open: (url) => openProxyAgent(url, options),
      openPeer: (url) => openPeerAgent(url, options),
      ping: async (url, signal) => {
        const answer = await this.request({ method: 'GET', url, headers: {}, signal })
        answer.discard()
        return answer.status
      },
    })
  }

  /** Whether requests with a route go through a proxy now. */
  get isProxied(): boolean {
    return this.#proxy?.isOn === true
  }

  /** Resolves when the headers are there. The body must be read or discarded. */
  request(request: HttpRequest): Promise<HttpAnswer> {
    return this.#send(request, async (agent, wired) => {
      try {
        wired.signal.throwIfAborted()
        const pending = agent.request({ ...this.#wireOptions(wired), signal: wired.signal })
        // undici notices the signal only when the request leaves the queue for a free connection.
        const { statusCode, headers, body } = await abortable(pending, wired.signal)
        return new StreamedAnswer(wired, statusCode, headers, body)
      } catch (error) {
        throw wireError(error, wired)
      }
    })
  }

  /**
   * For reads into the caller's buffer: `accept` sees status and headers and gives the sink for the body, or undefined for an answer that is not
   * what was hoped for. Resolves after the last byte. When `accept` or the sink throws, the connection is closed and that is what is thrown.
   */
  requestInto(
    request: HttpRequest,
    accept: (status: number, headers: HttpHeaders) => BodySink | undefined,
  ): Promise<HttpAnswer> {
    return this.#send(request, (agent, wired, begun) => {
      const into = new IntoHandler(wired, (status, headers) => {
        if (isProxyRefusal(headers) && wired.route !== undefined) return undefined
        const sink = accept(status, headers)
        if (sink !== undefined) begun()
        return sink
      })
      agent.dispatch(this.#wireOptions(wired), into)
      return into.answer
    })
  }

  /** Breaks what is under way; resolves when the sockets are closed. */
  async close(): Promise<void> {
    this.#closed = true
    const agent = await this.#agent
    await Promise.all([agent?.destroy(), this.#proxy?.close()])
  }

  async #send(request: HttpRequest, exchange: Exchange): Promise<HttpAnswer> {
    const direct = async (): Promise<HttpAnswer> => exchange(await this.#open(), request, () => undefined)
    const { route } = request
    if (route === undefined || this.#proxy === undefined || !this.#proxy.isOn) return direct()
    if (this.#closed) throw closedClient()
    return this.#proxy.send(request, route, { direct, exchange })
  }

  async #open(): Promise<Dispatcher> {
    if (this.#closed) throw closedClient()
    this.#agent ??= openAgent(this.#options)
    const agent = await this.#agent
    if (this.#closed) throw closedClient()
    return agent
  }

  #wireOptions(request: HttpRequest): Dispatcher.DispatchOptions {
    const { body } = request
    return {
      origin: request.url.origin,
      path: request.url.pathname + request.url.search,
      method: request.method,
      headers: { 'accept-encoding': 'identity', ...request.headers },
      headersTimeout: this.#options.headersTimeoutMs,
      bodyTimeout: this.#options.bodyTimeoutMs,
      body:
        body === undefined
          ? null
          : body instanceof Uint8Array
            ? body
            : Readable.from(body, { objectMode: false, highWaterMark: 1 << 18 }),
    }
  }
}

function closedClient(): RegistryError {
  return new RegistryError('CLOSED', 'cannot ask the registry: the client was closed')
}

/**
 * One exchange that fills the caller's buffer, as undici's handler: what `request` would do costs a stream and a copy. After `answer` is settled not
 * one byte more reaches the sink.
 */
class IntoHandler implements Dispatcher.DispatchHandler {
  readonly answer: Promise<HttpAnswer>
  readonly #request: HttpRequest
  readonly #accept: (status: number, headers: HttpHeaders) => BodySink | undefined
  readonly #settlers = Promise.withResolvers<HttpAnswer>()
  #controller: Dispatcher.DispatchController | undefined
  #sink: BodySink | undefined
  #collected: CollectedAnswer | undefined
  #settled = false

  constructor(request: HttpRequest, accept: (status: number, headers: HttpHeaders) => BodySink | undefined) {
    this.#request = request
    this.#accept = accept
    this.answer = this.#settlers.promise
    if (request.signal.aborted) this.#onAbort()
    else request.signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** The request may leave the queue long after its caller has gone. */
  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    if (this.#settled) controller.abort(new Error('aborted before the request was sent'))
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: HttpHeaders): void {
    if (this.#settled || status < 200) return
    try {
      this.#sink = this.#accept(status, headers)
      this.#collected = new CollectedAnswer(status, headers)
    } catch (error) {
      this.#fail(error)
    }
  }

  onResponseData(_: Dispatcher.DispatchController, bytes: Uint8Array): void {
    if (this.#settled) return
    try {
      const more = this.#sink === undefined ? this.#collected?.add(bytes) : this.#sink(bytes)
      if (more !== false) return
      // The rest of the body is of no interest: closing the connection is cheaper than reading it.
      this.onResponseEnd()
      this.#controller?.abort(new Error('the rest of the body is not wanted'))
    } catch (error) {
      this.#fail(error)
    }
  }

  onResponseEnd(): void {
    const answer = this.#collected
    if (answer !== undefined) this.#settle(() => this.#settlers.resolve(answer))
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.#settle(() => this.#settlers.reject(wireError(error, this.#request)))
  }

  readonly #onAbort = (): void => this.#fail(abortError(this.#request))

  /** What the caller's own functions throw goes to the caller as it is. */
  #fail(error: unknown): void {
    this.#settle(() => this.#settlers.reject(error))
    this.#controller?.abort(error instanceof Error ? error : new Error('the receiver failed', { cause: error }))
  }

  #settle(act: () => void): void {
    if (this.#settled) return
    this.#settled = true
    this.#request.signal.removeEventListener('abort', this.#onAbort)
    act()
  }
}

/** An answer whose body went into a sink, or was read up to the limit for errors. */
class CollectedAnswer implements HttpAnswer {
  readonly status: number
  readonly headers: HttpHeaders
  readonly #parts: Buffer[] = []
  #size = 0

  constructor(status: number, headers: HttpHeaders) {
    this.status = status
    this.headers = headers
  }

  /** False when the limit is reached. */
  add(bytes: Uint8Array): boolean {
    this.#parts.push(Buffer.from(bytes)) // a copy: the buffer is the socket's
    this.#size += bytes.length
    return this.#size < MAX_ERROR_BYTES
  }

  async bytes(): Promise<Uint8Array> {
    return Buffer.concat(this.#parts)
  }

  async errorText(): Promise<string> {
    return Buffer.concat(this.#parts).toString('utf8')
  }

  async *stream(): AsyncIterable<Uint8Array> {
    yield* this.#parts
  }

  discard(): void {}
}

class StreamedAnswer implements HttpAnswer {
  readonly status: number
  readonly headers: HttpHeaders
  readonly #request: HttpRequest
  readonly #body: Dispatcher.ResponseData['body']

  constructor(request: HttpRequest, status: number, headers: HttpHeaders, body: Dispatcher.ResponseData['body']) {
    this.status = status
    this.headers = headers
    this.#request = request
    this.#body = body
  }

  async bytes(limit: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = []
    let size = 0
    for await (const part of this.stream()) {
      size += part.length
      if (size > limit)
        throw new RegistryError(
          'BAD_RESPONSE',
          `cannot use the answer of ${this.#request.url.host}: more than ${limit} bytes`,
        )
      parts.push(part)
    }
    return Buffer.concat(parts)
  }

  async errorText(): Promise<string> {
    const parts: Uint8Array[] = []
    let size = 0
    try {
      for await (const part of this.#body) {
        parts.push(part as Uint8Array) // the stream is in byte mode
        size += (part as Uint8Array).length
        if (size >= MAX_ERROR_BYTES) break
      }
    } catch {
      // The status is the error; its text is a courtesy.
    }
    return Buffer.concat(parts).toString('utf8', 0, MAX_ERROR_BYTES)
  }

  async *stream(): AsyncIterable<Uint8Array> {
    try {
      for await (const part of this.#body) yield part as Uint8Array // the stream is in byte mode
    } catch (error) {
      throw wireError(error, this.#request)
    }
  }

  discard(): void {
    this.#body.on('error', () => {}) // nobody waits for it any more
    const length = Number(this.headers['content-length'] ?? Number.POSITIVE_INFINITY)
    if (length <= MAX_DRAIN_BYTES || this.#request.method === 'HEAD') this.#body.resume()
    else this.#body.destroy()
  }
}
