import type { BodySink, HttpAnswer, HttpHeaders, HttpOptions, HttpRequest, ProxyOptions } from '../registry/index.ts'
import { checkCertificates, Http, RangeFill, retryAfterMs } from '../registry/index.ts'
import type { Backend, BlobReader, ReadOptions } from './backend.ts'
import { abortedRead, BackendError, type BackendErrorCode, checkBlobId, checkRange } from './errors.ts'
import { fromRegistry } from './registry-failure.ts'

/** A server that keeps each blob under a URL and answers HEAD, and GET with ranges: what its kind is about. */
export interface BlobServer {
  readonly name: string
  /** For messages: `bucket images at oss.example`. No secrets. */
  readonly where: string
  urlOf(blobId: string): URL
  /** The headers to send: those given, and a login or signature for them. Called for each request anew. */
  authorise(method: 'GET' | 'HEAD', url: URL, headers: Readonly<Record<string, string>>): Record<string, string>
  /** What the server means by an answer that is no success; undefined: what the status says. */
  explain?(status: number, body: string): { readonly code?: BackendErrorCode; readonly detail: string } | undefined
  /** How bodies are taken; default strictly. */
  fill?(parts: FillParts): Fill
}

/** A buffer while it is filled by one answer. */
export interface Fill {
  readonly range: string
  accept(status: number, headers: HttpHeaders): BodySink | undefined
  /** Throws when bytes are missing. */
  ended(): void
}

export interface FillParts {
  readonly into: Uint8Array
  readonly offset: number
  readonly what: string
  readonly onFilled: ((filled: number) => void) | undefined
}

/** The network keys that all such servers have. */
export interface NetworkOptions {
  /** No certificate checks. */
  readonly skipVerify: boolean
  /** PEM text of certificates to trust beside the system's; blank = none. */
  readonly ca: string
  /** Without any sign of life a request ends; milliseconds, 0 = none. */
  readonly timeoutMs: number
  /** A connection, with its TLS handshake, must be there after so long; milliseconds, 0 = none. */
  readonly connectTimeoutMs: number
  /** Sent with every request. */
  readonly headers?: Readonly<Record<string, string>>
  readonly proxy?: ProxyOptions | undefined
}

/** Requests to one server at once; the others wait their turn. */
const CONNECTIONS = 32
const CODES: Readonly<Record<number, BackendErrorCode>> = {
  401: 'UNAUTHORIZED',
  403: 'FORBIDDEN',
  404: 'NOT_FOUND',
  416: 'TRUNCATED',
  429: 'RATE_LIMITED',
}

/** The blobs of a server. Nothing is loaded or connected before the first request; none is tried again here. Throws 'BAD_OPTION'. */
export function httpBlobs(
  server: BlobServer,
  network: NetworkOptions,
  more: Pick<HttpOptions, 'socketPath'> & { readonly connections?: number } = {},
): Backend {
  const { ca, skipVerify, timeoutMs, connectTimeoutMs } = network
  const { socketPath, connections = CONNECTIONS } = more
  try {
    if (ca !== '') checkCertificates(ca)
  } catch (error) {
    throw fromRegistry(error, `use backend ${server.name}`, 1)
  }
  const http = new Http({
    connectionsPerHost: connections,
    connectTimeoutMs,
    headersTimeoutMs: timeoutMs,
    bodyTimeoutMs: timeoutMs,
    ca: ca === '' ? undefined : ca,
    skipVerify,
    proxy: network.proxy,
    ...(socketPath === undefined ? {} : { socketPath }),
  })
  return new HttpBlobs(server, http, network.headers ?? {})
}

class HttpBlobs implements Backend {
  readonly name: string
  readonly #server: BlobServer
  readonly #http: Http
  readonly #headers: Readonly<Record<string, string>>
  readonly #closing = new AbortController()

  constructor(server: BlobServer, http: Http, headers: Readonly<Record<string, string>>) {
    this.name = server.name
    this.#server = server
    this.#http = http
    this.#headers = headers
  }

  async open(blobId: string): Promise<BlobReader> {
    if (this.#closing.signal.aborted)
      throw new BackendError('CLOSED', `cannot open blob ${blobId}: the backend was closed`)
    checkBlobId(blobId)
    return new HttpBlobReader({
      server: this.#server,
      http: this.#http,
      headers: this.#headers,
      blobId,
      closing: this.#closing.signal,
    })
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#http.close()
  }
}

interface ReaderParts {
  readonly server: BlobServer
  readonly http: Http
  readonly headers: Readonly<Record<string, string>>
  readonly blobId: string
  readonly closing: AbortSignal
}

class HttpBlobReader implements BlobReader {
  readonly #parts: ReaderParts
  readonly #url: URL
  readonly #closing = new AbortController()

  constructor(parts: ReaderParts) {
    this.#parts = parts
    this.#url = parts.server.urlOf(parts.blobId)
  }

  async size(signal: AbortSignal): Promise<number> {
    const { http, blobId, server } = this.#parts
    const what = `find the size of blob ${blobId}`
    return await this.#asked(what, signal, async (either) => {
      const answer = await http.request(this.#request('HEAD', {}, { signal: either }))
      answer.discard()
      if (answer.status !== 200) throw await this.#refusal(what, answer)
      const size = Number(answer.headers['content-length'] ?? Number.NaN)
      if (Number.isSafeInteger(size) && size >= 0) return size
      throw new BackendError('BAD_ANSWER', `cannot ${what}: ${server.where} does not tell it`)
    })
  }

  async read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    const { http, blobId, server } = this.#parts
    const what = `read ${into.length} bytes at ${compressedOffset} of blob ${blobId}`
    checkRange(what, compressedOffset, into.length)
    if (into.length === 0) return this.#check(what, options.signal)
    const parts = { into, offset: compressedOffset, what, onFilled: options.onFilled }
    const fill = server.fill?.(parts) ?? new RangeFill(parts)
    await this.#asked(what, options.signal, async (either) => {
      const request = this.#request('GET', { range: fill.range }, { ...options, signal: either })
      const answer = await http.requestInto(request, (status, headers) => fill.accept(status, headers))
      if (answer.status !== 200 && answer.status !== 206) throw await this.#refusal(what, answer)
      fill.ended()
    })
  }

  async close(): Promise<void> {
    this.#closing.abort()
  }

  async #asked<T>(what: string, signal: AbortSignal, act: (either: AbortSignal) => Promise<T>): Promise<T> {
    this.#check(what, signal)
    try {
      return await act(AbortSignal.any([signal, this.#parts.closing, this.#closing.signal]))
    } catch (error) {
      this.#check(what, signal)
      throw fromRegistry(error, what, 1)
    }
  }

  #request(
    method: 'GET' | 'HEAD',
    headers: Readonly<Record<string, string>>,
    { signal, purpose = 'demand', fromSource = false }: ReadOptions,
  ): HttpRequest {
    const { server, headers: own } = this.#parts
    const all = server.authorise(method, this.#url, { ...own, ...headers })
    return { method, url: this.#url, headers: all, signal, route: { purpose, fromSource } }
  }

  async #refusal(what: string, answer: HttpAnswer): Promise<BackendError> {
    const { server } = this.#parts
    const { status } = answer
    const meant = server.explain?.(status, await answer.errorText())
    const code = meant?.code ?? CODES[status] ?? (status >= 500 ? 'SERVER' : 'BAD_ANSWER')
    const detail = meant === undefined ? '' : ` (${meant.detail})`
    const later = retryAfterMs(answer.headers['retry-after'], Date.now())
    return new BackendError(code, `cannot ${what}: ${server.where} answers ${status}${detail}`, {
      status,
      ...(status === 416 ? { retryable: false } : {}),
      ...(later === undefined ? {} : { retryAfterMs: later }),
    })
  }

  #check(what: string, signal: AbortSignal): void {
    if (this.#closing.signal.aborted || this.#parts.closing.aborted)
      throw new BackendError('CLOSED', `cannot ${what}: it was closed`)
    if (signal.aborted) throw abortedRead(what, signal)
  }
}
