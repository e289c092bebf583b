import type { Agent, ClientRequest, IncomingMessage, RequestOptions } from 'node:http'
import type { Socket } from 'node:net'
import type { Backend, BlobReader, ReadOptions } from './backend.ts'
import { abortedRead, BackendError, type BackendErrorCode, checkRange } from './errors.ts'

/** A server that answers HEAD and GET with Range for blobs. */
export interface HttpProxyOptions {
  /** `http://…` or `https://…`, perhaps with a login: blobs are at `addr`/`path`/id. Anything else is the path of a Unix socket, behind which there is one blob, at `/`. */
  readonly addr: string
  readonly path: string
  /** No certificate checks. */
  readonly skipVerify: boolean
  /** PEM text of certificates to trust beside the system's. */
  readonly ca: string
  /** Without any sign of life a request ends; milliseconds, 0 = none. */
  readonly timeoutMs: number
  /** A connection, with its TLS handshake, must be there after so long; milliseconds, 0 = none. */
  readonly connectTimeoutMs: number
}

const CONNECTIONS = 16
const BLOB_ID = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$/
const CODES: Readonly<Record<number, BackendErrorCode>> = {
  401: 'UNAUTHORIZED',
  403: 'FORBIDDEN',
  404: 'NOT_FOUND',
  416: 'TRUNCATED',
  429: 'RATE_LIMITED',
}

/** Blobs behind a local or remote HTTP server, by ranges. Nothing is connected before the first read. Throws 'BAD_OPTION'. */
export function httpProxyBackend(options: HttpProxyOptions): Backend {
  if (options.addr === '') throw new BackendError('BAD_OPTION', 'cannot use backend http-proxy: its "addr" is empty')
  return new HttpProxyBackend(options, isRemote(options.addr) ? folderOf(options) : undefined)
}

/** The URL that ids are appended to. */
function folderOf({ addr, path }: HttpProxyOptions): URL {
  const folder = path.replace(/^\/+|\/+$/g, '')
  const text = `${addr.replace(/\/+$/, '')}/${folder === '' ? '' : `${folder}/`}`
  try {
    const url = new URL(text)
    loginOf(url)
    return url
  } catch {
    // Not told with its cause: that quotes the URL, in which there may be a login.
    throw new BackendError(
      'BAD_OPTION',
      'cannot use backend http-proxy: its "addr" and "path" make no URL; correct them',
    )
  }
}

function loginOf({ username, password }: URL): string | undefined {
  const login = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  return login === ':' ? undefined : login
}

/** Whether an `addr` is a server's address, not the path of a Unix socket. */
export function isRemote(addr: string): boolean {
  return /^https?:\/\//.test(addr)
}

class HttpProxyBackend implements Backend {
  readonly name = 'http-proxy'
  readonly #options: HttpProxyOptions
  readonly #folder: URL | undefined
  readonly #agent: Agent
  readonly #closing = new AbortController()

  constructor(options: HttpProxyOptions, folder: URL | undefined) {
    this.#options = options
    this.#folder = folder
    this.#agent = agentOf(options)
  }

  async open(blobId: string): Promise<BlobReader> {
    if (this.#closing.signal.aborted)
      throw new BackendError('CLOSED', `cannot open blob ${blobId}: the backend was closed`)
    if (!BLOB_ID.test(blobId))
      throw new BackendError('BAD_OPTION', `cannot open blob ${JSON.stringify(blobId.slice(0, 300))}: it is no blob id`)
    const target = { ...this.#target(blobId), agent: this.#agent }
    const { timeoutMs, connectTimeoutMs } = this.#options
    return new HttpProxyReader({ target, blobId, closing: this.#closing.signal, timeoutMs, connectTimeoutMs })
  }

  async close(): Promise<void> {
    this.#closing.abort()
    this.#agent.destroy()
  }

  #target(blobId: string): RequestOptions {
    if (this.#folder === undefined) return { socketPath: this.#options.addr, path: '/' }
    const { protocol, hostname, port, pathname } = new URL(blobId, this.#folder)
    return { protocol, hostname, port, path: pathname, auth: loginOf(this.#folder) }
  }
}

/** Node's modules are loaded when they are used: most programs never do. */
function agentOf({ addr, skipVerify, ca }: HttpProxyOptions): Agent {
  // What serves a Unix socket may read its blob front to back, for one request at a time.
  const limits = { keepAlive: true, maxSockets: isRemote(addr) ? CONNECTIONS : 1 }
  if (!addr.startsWith('https:')) return new (process.getBuiltinModule('node:http').Agent)(limits)
  const system = process.getBuiltinModule('node:tls').getCACertificates('default')
  const trust = { rejectUnauthorized: !skipVerify, ...(ca === '' ? {} : { ca: [...system, ca] }) }
  return new (process.getBuiltinModule('node:https').Agent)({ ...limits, ...trust })
}

interface ReaderParts {
  readonly target: RequestOptions
  readonly blobId: string
  readonly closing: AbortSignal
  readonly timeoutMs: number
  readonly connectTimeoutMs: number
}

class HttpProxyReader implements BlobReader {
  readonly #parts: ReaderParts
  readonly #closing = new AbortController()

  constructor(parts: ReaderParts) {
    this.#parts = parts
  }

  async size(signal: AbortSignal): Promise<number> {
    const what = `find the size of blob ${this.#parts.blobId}`
    return await this.#ask(what, { method: 'HEAD' }, signal, async (response) => {
      response.resume()
      const size = Number(response.headers['content-length'] ?? Number.NaN)
      if (Number.isSafeInteger(size) && size >= 0) return size
      throw new BackendError('BAD_ANSWER', `cannot ${what}: the proxy does not tell it`)
    })
  }

  async read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    const what = `read ${into.length} bytes at ${compressedOffset} of blob ${this.#parts.blobId}`
    checkRange(what, compressedOffset, into.length)
    if (into.length === 0) return this.#check(what, options.signal)
    const headers = { Range: `bytes=${compressedOffset}-${compressedOffset + into.length - 1}` }
    await this.#ask(what, { method: 'GET', headers }, options.signal, (response) =>
      fill(into, response, { what, compressedOffset, check: () => this.#check(what, options.signal), options }),
    )
  }

  async close(): Promise<void> {
    this.#closing.abort()
  }

  async #ask<T>(
    what: string,
    request: { readonly method: string; readonly headers?: Readonly<Record<string, string>> },
    signal: AbortSignal,
    use: (response: IncomingMessage) => Promise<T>,
  ): Promise<T> {
    this.#check(what, signal)
    const { target, timeoutMs, connectTimeoutMs, closing } = this.#parts
    const all = AbortSignal.any([signal, closing, this.#closing.signal])
    try {
      const options = { ...target, ...request, signal: all, timeout: timeoutMs }
      const response = await answerOf(options, connectTimeoutMs, what)
      try {
        throwUnlessGood(what, response)
        return await use(response)
      } finally {
        // What was not asked for is not waited for.
        if (!response.complete) response.destroy()
      }
    } catch (error) {
      this.#check(what, signal)
      if (error instanceof BackendError) throw error
      throw new BackendError('UNREACHABLE', `cannot ${what}: ${(error as Error).message}`, { cause: error })
    }
  }

  #check(what: string, signal: AbortSignal): void {
    if (this.#closing.signal.aborted || this.#parts.closing.aborted)
      throw new BackendError('CLOSED', `cannot ${what}: it was closed`)
    if (signal.aborted) throw abortedRead(what, signal)
  }
}

async function answerOf(options: RequestOptions, connectTimeoutMs: number, what: string): Promise<IncomingMessage> {
  const { request } =
    options.protocol === 'https:' ? process.getBuiltinModule('node:https') : process.getBuiltinModule('node:http')
  return await new Promise((resolve, reject) => {
    const sent: ClientRequest = request(options, (response) => {
      response.on('error', () => undefined) // the reader of the body gets it
      resolve(response)
    })
    sent.on('timeout', () =>
      sent.destroy(
        new BackendError('TIMEOUT', `cannot ${what}: the proxy gave no sign of life for ${options.timeout} ms`),
      ),
    )
    sent.on('error', reject)
    if (connectTimeoutMs > 0)
      limitConnecting(sent, connectTimeoutMs, options.protocol === 'https:' ? 'secureConnect' : 'connect', () =>
        sent.destroy(
          new BackendError('TIMEOUT', `cannot ${what}: no connection to the proxy after ${connectTimeoutMs} ms`),
        ),
      )
    sent.end()
  })
}

/** Connections that had their first request: to the next ones they are there already. */
const STARTED = new WeakSet<Socket>()

/** The time counts from when the request has a socket, not while it waits for one. */
function limitConnecting(
  sent: ClientRequest,
  ms: number,
  ready: 'connect' | 'secureConnect',
  onTimeout: () => void,
): void {
  sent.once('socket', (socket) => {
    if (STARTED.has(socket)) return
    STARTED.add(socket)
    const timer = setTimeout(onTimeout, ms)
    const stop = (): void => clearTimeout(timer)
    socket.once(ready, stop)
    sent.once('close', stop)
  })
}

function throwUnlessGood(what: string, { statusCode: status = 0 }: IncomingMessage): void {
  if (status === 200 || status === 206) return
  const code = CODES[status] ?? (status >= 500 ? 'SERVER' : 'BAD_ANSWER')
  throw new BackendError(code, `cannot ${what}: the proxy answers ${status}`, { status })
}

/**
 * Takes the wanted bytes of an answer. Proxies exist that answer 200 to a range and tell no length (nydus-snapshotter's, where it unpacks a layer); one that
 * sends the whole blob instead is told apart by the length that it announces, or sends.
 */
async function fill(
  into: Uint8Array,
  response: IncomingMessage,
  read: {
    readonly what: string
    readonly compressedOffset: number
    readonly check: () => void
    readonly options: ReadOptions
  },
): Promise<void> {
  const { what, compressedOffset, check, options } = read
  const bad = (why: string): BackendError => new BackendError('BAD_ANSWER', `cannot ${what}: the proxy ${why}`)
  const range = response.headers['content-range']
  if (range !== undefined && !range.startsWith(`bytes ${compressedOffset}-`)) throw bad(`sends ${range.slice(0, 100)}`)
  const announced = Number(response.headers['content-length'] ?? into.length)
  if (announced > into.length) throw bad(`sends ${announced} bytes: it does not know ranges`)
  let filled = 0
  for await (const bytes of response as AsyncIterable<Buffer>) {
    check()
    if (filled + bytes.length > into.length) throw bad(`sends more: it does not know ranges`)
    into.set(bytes, filled)
    filled += bytes.length
    options.onFilled?.(filled)
  }
  if (filled < into.length)
    throw new BackendError('TRUNCATED', `cannot ${what}: the proxy's answer ended after ${filled} bytes`)
}
