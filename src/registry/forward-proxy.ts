import type { Dispatcher } from 'undici'
import { RegistryError } from './errors.ts'
import type { HttpAnswer, HttpRequest } from './http.ts'
import { PeerRoute, type PeerRouteOptions } from './peer-route.ts'
import { ProxyHealth, type ProxyHealthOptions } from './proxy-health.ts'
import { isOwnRefusal, isProxyRefusal, refusal } from './proxy-refusal.ts'
import type { Clock } from './retry.ts'
import { sourceTurn } from './source-turns.ts'

/** A proxy on the way to servers, perhaps one that distributes among machines what it fetches (Dragonfly). */
export interface ProxyOptions extends ProxyHealthOptions, PeerRouteOptions {
  /** `http(s)://[user:password@]host[:port]`; blank = none. Asked for each request, so that it may change. */
  readonly url: () => string
  /** When the proxy fails: ask the server itself. */
  readonly fallback: boolean
  /** Ask through the proxy by plain HTTP for what is at `https://`. */
  readonly useHttp: boolean
}

/** What a request through a proxy is for. Requests without a route never go through one. */
export interface Route {
  readonly purpose: 'demand' | 'prefetch'
  /** Past what the proxy distributes: from the server itself where that may be asked, else through the proxy as a plain one. */
  readonly fromSource: boolean
}

/** One exchange through an agent. */
export type Exchange = (agent: Dispatcher, request: HttpRequest, begun: () => void) => Promise<HttpAnswer>

interface ProxyParts {
  readonly clock: Clock
  /** An agent that goes through the proxy. */
  readonly open: (url: string) => Promise<Dispatcher>
  /** An agent that goes through the HTTP proxy of a Dragonfly peer. */
  readonly openPeer: (url: string) => Promise<Dispatcher>
  readonly ping: (url: URL, signal: AbortSignal) => Promise<number>
}

const SERVER_ERROR = 500
const NOTICE_PAUSE_MS = 2_000

/** Whether text is the address of a proxy, its login readable. */
export function isProxyUrl(text: string): boolean {
  const url = URL.parse(text)
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) return false
  try {
    decodeURIComponent(url.username + url.password)
    return true
  } catch {
    return false // a stray % in the login
  }
}

/** Decides for each request whether it goes through the proxy, and what a failure of the proxy means. */
export class ForwardProxy {
  readonly #options: ProxyOptions
  readonly #parts: ProxyParts
  readonly #health: ProxyHealth
  readonly #peers: PeerRoute
  #agent: { readonly url: string; readonly opened: Promise<Dispatcher> } | undefined
  /** Whether addresses are rewritten to plain HTTP: the first one decides. */
  #rewrites: boolean | undefined
  #noticeAt = Number.NEGATIVE_INFINITY

  constructor(options: ProxyOptions, parts: ProxyParts) {
    this.#options = options
    this.#parts = parts
    this.#health = new ProxyHealth(options, parts)
    this.#peers = new PeerRoute(options, { open: parts.openPeer })
  }

  get isOn(): boolean {
    return this.#options.url() !== ''
  }

  /** The answer of the request: through a peer where there is a scheduler, else through the proxy, or past it. */
  async send(
    request: HttpRequest,
    route: Route,
    ways: { readonly direct: () => Promise<HttpAnswer>; readonly exchange: Exchange },
  ): Promise<HttpAnswer> {
    const { fallback } = this.#options
    if (route.fromSource) await sourceTurn(this.#parts.clock, request.signal)
    // Peers know nothing but GET, and in what else is asked there is nothing to distribute.
    const isPast = route.fromSource || (this.#peers.isOn && request.method !== 'GET')
    if (isPast && fallback) return ways.direct()
    if (!isPast && this.#peers.isOn) {
      const answer = await this.#peers.send(request, route, ways.exchange)
      if (answer !== undefined) return answer
    }
    if (!(await this.#health.isGood(request.signal))) {
      if (!fallback) throw this.#unhealthy(request)
      this.#notice('Proxy server is not healthy, fallback to original server')
      return ways.direct()
    }
    const answer = await this.#through(request, { ...route, fromSource: isPast }, ways.exchange)
    return answer ?? (await ways.direct())
  }

  async close(): Promise<void> {
    this.#health.close()
    await this.#peers.close()
    const agent = this.#agent
    this.#agent = undefined
    await agent?.opened.then((opened) => opened.destroy()).catch(() => undefined) // one that never opened has nothing to close
  }

  /** Undefined: the proxy failed, and the server may be asked. Bytes that have begun to come are no reason to start anew elsewhere. */
  async #through(request: HttpRequest, route: Route, exchange: Exchange): Promise<HttpAnswer | undefined> {
    const { fallback } = this.#options
    let hasBegun = false
    try {
      const agent = await this.#open()
      const answer = await exchange(agent, this.#dressed(request, route), () => (hasBegun = true))
      if (answer.status >= SERVER_ERROR && fallback) {
        answer.discard()
        this.#notice(`Request proxy server failed (${answer.status}), fallback to original server`)
        return undefined
      }
      if (!isProxyRefusal(answer.headers)) return answer
      answer.discard()
      throw refusal(request, route, answer.status)
    } catch (error) {
      if (!fallback || hasBegun || request.signal.aborted || isOwnRefusal(error)) throw error
      this.#notice(`Request proxy server failed (${(error as Error).message}), fallback to original server`)
      return undefined
    }
  }

  #dressed(request: HttpRequest, route: Route): HttpRequest {
    const url = this.#options.useHttp ? this.#rewritten(request.url) : request.url
    if (route.fromSource) return { ...request, url }
    const headers = {
      ...request.headers,
      'X-Dragonfly-Prefetch': 'true',
      'X-Dragonfly-Priority': route.purpose === 'prefetch' ? '3' : '6',
      'X-Dragonfly-Use-P2P': 'true',
    }
    return { ...request, url, headers }
  }

  #rewritten(url: URL): URL {
    this.#rewrites ??= url.protocol === 'https:'
    if (!this.#rewrites || url.protocol !== 'https:') return url
    const plain = new URL(url)
    plain.protocol = 'http:'
    return plain
  }

  /** Another address since the last request: what is under way with the old one ends there. */
  async #open(): Promise<Dispatcher> {
    const url = this.#options.url()
    if (this.#agent?.url !== url) {
      if (!isProxyUrl(url))
        throw new RegistryError('BAD_CONFIG', 'cannot use the proxy: its "url" is no http(s)://HOST[:PORT]')
      const old = this.#agent
      old?.opened.then((agent) => agent.close()).catch(() => undefined) // one that never opened has nothing to close
      this.#agent = { url, opened: this.#parts.open(url) }
    }
    return this.#agent.opened
  }

  #unhealthy({ url }: HttpRequest): RegistryError {
    return new RegistryError(
      'UNREACHABLE',
      `cannot ask ${url.host}: proxy is not healthy and fallback is disabled; start the proxy, or allow "proxy.fallback"`,
    )
  }

  #notice(text: string): void {
    const now = this.#parts.clock.now()
    if (Math.abs(now - this.#noticeAt) < NOTICE_PAUSE_MS) return
    this.#noticeAt = now
    this.#options.onNotice(text)
  }
}
