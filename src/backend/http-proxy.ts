import type { BodySink, HttpHeaders } from '../registry/index.ts'
import type { Backend } from './backend.ts'
import { BackendError } from './errors.ts'
import { type BlobServer, type Fill, type FillParts, httpBlobs, type NetworkOptions } from './http-blobs.ts'

/** A server that answers HEAD and GET with Range for blobs. */
export interface HttpProxyOptions extends NetworkOptions {
  /** `http://…` or `https://…`, perhaps with a login: blobs are at `addr`/`path`/id. Anything else is the path of a Unix socket, behind which there is one blob, at `/`, and no proxy before it. */
  readonly addr: string
  readonly path: string
}

const CONNECTIONS = 16

/** Blobs behind a local or remote HTTP server, by ranges. Nothing is connected before the first read. Throws 'BAD_OPTION'. */
export function httpProxyBackend(options: HttpProxyOptions): Backend {
  const { addr } = options
  if (addr === '') throw new BackendError('BAD_OPTION', 'cannot use backend http-proxy: its "addr" is empty')
  if (isRemote(addr)) return httpBlobs(remote(folderOf(options)), options, { connections: CONNECTIONS })
  // What serves a Unix socket may read its blob front to back, for one request at a time.
  return httpBlobs(behindSocket(), { ...options, proxy: undefined }, { connections: 1, socketPath: addr })
}

/** Whether an `addr` is a server's address, not the path of a Unix socket. */
export function isRemote(addr: string): boolean {
  return /^https?:\/\//.test(addr)
}

function remote(folder: URL): BlobServer {
  const login = loginOf(folder)
  const place = new URL(folder)
  place.username = ''
  place.password = ''
  return {
    name: 'http-proxy',
    where: 'the proxy',
    urlOf: (blobId) => new URL(blobId, place),
    authorise: (_method, _url, headers) =>
      login === undefined ? { ...headers } : { authorization: login, ...headers },
    fill: (parts) => new LooseFill(parts),
  }
}

function behindSocket(): BlobServer {
  return {
    name: 'http-proxy',
    where: 'the proxy',
    urlOf: () => new URL('http://localhost/'),
    authorise: (_method, _url, headers) => ({ ...headers }),
    fill: (parts) => new LooseFill(parts),
  }
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
  return login === ':' ? undefined : `Basic ${Buffer.from(login).toString('base64')}`
}

/**
 * Takes the wanted bytes of an answer. Proxies exist that answer 200 to a range and tell no length (nydus-snapshotter's, where it unpacks a layer); one that
 * sends the whole blob instead is told apart by the length that it announces, or sends.
 */
class LooseFill implements Fill {
  readonly #parts: FillParts
  #filled = 0

  constructor(parts: FillParts) {
    this.#parts = parts
  }

  get range(): string {
    const { offset, into } = this.#parts
    return `bytes=${offset}-${offset + into.length - 1}`
  }

  accept(status: number, headers: HttpHeaders): BodySink | undefined {
    if (status !== 200 && status !== 206) return undefined
    const { into, offset } = this.#parts
    const range = headers['content-range']
    if (range !== undefined && !String(range).startsWith(`bytes ${offset}-`))
      throw this.#bad(`sends ${String(range).slice(0, 100)}`)
    const announced = Number(headers['content-length'] ?? into.length)
    if (announced > into.length) throw this.#bad(`sends ${announced} bytes: it does not know ranges`)
    return (bytes) => this.#take(bytes)
  }

  ended(): void {
    const { what, into } = this.#parts
    if (this.#filled < into.length)
      throw new BackendError('TRUNCATED', `cannot ${what}: the proxy's answer ended after ${this.#filled} bytes`)
  }

  #take(bytes: Uint8Array): boolean {
    const { into, onFilled } = this.#parts
    if (this.#filled + bytes.length > into.length) throw this.#bad('sends more: it does not know ranges')
    into.set(bytes, this.#filled)
    this.#filled += bytes.length
    onFilled?.(this.#filled)
    return true
  }

  #bad(why: string): BackendError {
    return new BackendError('BAD_ANSWER', `cannot ${this.#parts.what}: the proxy ${why}`)
  }
}
