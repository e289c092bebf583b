import type { Dispatcher } from 'undici'
import { type PeersShare, sharePeers } from '../dragonfly/index.ts'
import { abortable } from './abortable.ts'
import { RegistryError, type RegistryErrorCode } from './errors.ts'
import type { Exchange, Route } from './forward-proxy.ts'
import type { HttpAnswer, HttpRequest } from './http.ts'
import { errorType, fromPeer, refusal } from './proxy-refusal.ts'

export interface PeerRouteOptions {
  /** The `http://HOST:PORT` of a Dragonfly scheduler; blank = none. Asked for each request, so that it may change. */
  readonly scheduler: () => string
  readonly onNotice: (text: string) => void
}

interface PeerParts {
  /** An agent that goes through the HTTP proxy of a peer. */
  readonly open: (url: string) => Promise<Dispatcher>
}

/** From a request to the start of its answer; peers that take longer are no help to who waits. */
const ANSWER_MS = 5_000
const MAX_AGENTS = 128
const MAX_REDIRECTS = 10
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])
/** What is wrong with an answer that came. */
const ANSWERED: ReadonlySet<RegistryErrorCode> = new Set(['BAD_RESPONSE', 'TRUNCATED'])
const FIRST_ERROR = 400
const UNAUTHORIZED = 401
const LOGIN_HEADERS = /auth|cookie|token|key|secret/i

/** Sends what is fetched to the seed peer of a Dragonfly cluster that it belongs to. */
export class PeerRoute {
  readonly #options: PeerRouteOptions
  readonly #parts: PeerParts
  #share: PeersShare | undefined
  /** By the address of the proxy; the one that was used last is last. */
  readonly #agents = new Map<string, Promise<Dispatcher>>()
  #closed = false

  constructor(options: PeerRouteOptions, parts: PeerParts) {
    this.#options = options
    this.#parts = parts
  }

  get isOn(): boolean {
    return this.#options.scheduler() !== ''
  }

  /**
   * The answer of the peer, or of the server behind it that wants a login; undefined: no peer can be asked, or it did not begin to answer, and the request is to be sent otherwise.
   * Any other failure is thrown, marked as a peer's.
   */
  async send(request: HttpRequest, route: Route, exchange: Exchange): Promise<HttpAnswer | undefined> {
    const share = this.#shareNow()
    if (share === undefined) return undefined
    await abortable(share.peers.asked, request.signal)
    const proxy = share.peers.proxyFor(request.url.href)
    if (proxy === undefined) return undefined
    let hasBegun = false
    let answer: HttpAnswer
    try {
      answer = await this.#through(proxy, dressed(request, route), (agent, wired, begun) =>
        exchange(agent, wired, () => {
          hasBegun = true
          begun()
        }),
      )
    } catch (error) {
      if (request.signal.aborted || this.#closed || !(error instanceof Error)) throw error
      if (hasBegun) throw fromPeer(error)
      if (!(error instanceof RegistryError) || !ANSWERED.has(error.code)) share.peers.failed(proxy)
      return undefined
    }
    if (answer.status < FIRST_ERROR) return answer
    const type = errorType(answer.headers)
    // The server's own challenge: with the login that it wants the peer is asked again.
    if (type === 'backend' && answer.status === UNAUTHORIZED) return answer
    answer.discard()
    throw fromPeer(peerError(request, route, { status: answer.status, type }))
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#share?.close()
    this.#share = undefined
    const agents = [...this.#agents.values()]
    this.#agents.clear()
    for (const agent of agents) await agent.then((opened) => opened.destroy()).catch(() => undefined) // one that never opened has nothing to close
  }

  /** Another scheduler since the last request: its peers are asked for anew. */
  #shareNow(): PeersShare | undefined {
    const endpoint = this.#options.scheduler()
    if (this.#share?.endpoint !== endpoint) {
      this.#share?.close()
      this.#share = endpoint === '' || this.#closed ? undefined : sharePeers(endpoint, this.#options.onNotice)
    }
    return this.#share
  }

  /** Redirects are followed at the same peer, as the original's library does: it keeps what it fetched under the first address. */
  async #through(proxy: string, request: HttpRequest, exchange: Exchange): Promise<HttpAnswer> {
    const agent = await this.#agent(proxy)
    let { url, headers } = request
    for (let redirects = 0; ; redirects += 1) {
      const answer = await inTime(agent, { ...request, url, headers }, exchange)
      const next = redirects < MAX_REDIRECTS ? redirectTarget(answer, url) : undefined
      if (next === undefined) return answer
      answer.discard()
      if (next.origin !== url.origin)
        headers = Object.fromEntries(
          Object.entries(headers).filter(([name]) => isOurs(name) || !LOGIN_HEADERS.test(name)),
        )
      url = next
    }
  }

  #agent(proxy: string): Promise<Dispatcher> {
    const agent = this.#agents.get(proxy) ?? this.#parts.open(proxy)
    this.#agents.delete(proxy)
    this.#agents.set(proxy, agent)
    const [[oldest, old] = []] = this.#agents
    if (this.#agents.size > MAX_AGENTS && oldest !== undefined) {
      this.#agents.delete(oldest)
      old?.then((opened) => opened.close()).catch(() => undefined) // one that never opened has nothing to close
    }
    return agent
  }
}

function dressed(request: HttpRequest, { purpose }: Route): HttpRequest {
  const headers = {
    ...request.headers,
    'X-Dragonfly-Prefetch': 'true',
    'X-Dragonfly-Enable-Task-ID-Based-Blob-Digest': 'true',
    'X-Dragonfly-Priority': purpose === 'prefetch' ? '3' : '6',
    'X-Dragonfly-Use-P2P': 'true',
  }
  return { ...request, headers }
}

function isOurs(name: string): boolean {
  return name.startsWith('X-Dragonfly-')
}

/** The deadline ends with the start of the answer: its body has the limits of every body. */
async function inTime(agent: Dispatcher, request: HttpRequest, exchange: Exchange): Promise<HttpAnswer> {
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(), ANSWER_MS)
  const begun = (): void => clearTimeout(timer)
  try {
    return await exchange(agent, { ...request, signal: AbortSignal.any([request.signal, late.signal]) }, begun)
  } finally {
    clearTimeout(timer)
  }
}

function redirectTarget({ status, headers }: HttpAnswer, from: URL): URL | undefined {
  const { location } = headers
  const url = REDIRECTS.has(status) && typeof location === 'string' ? URL.parse(location, from.href) : null
  const isUsable = url?.protocol === 'http:' || url?.protocol === 'https:'
  return isUsable && url.username === '' && url.password === '' ? url : undefined
}

/** What does not say whose it is, is the peer's own. */
function peerError(
  request: HttpRequest,
  route: Route,
  { status, type }: { status: number; type: string | undefined },
): RegistryError {
  if (type !== 'backend' && type !== 'dfdaemon') return refusal(request, route, status)
  const who = type === 'backend' ? 'the server behind it' : 'its dfdaemon'
  const said = `cannot ask ${request.url.host} through a Dragonfly peer: ${who} answers ${status}`
  return new RegistryError('UNAVAILABLE', said, { status })
}
