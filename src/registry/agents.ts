import type { ConnectionOptions } from 'node:tls'
import type { Dispatcher } from 'undici'
import type { ProxyOptions } from './forward-proxy.ts'
import type { Clock } from './retry.ts'

/** Timeouts, connections and trust of the one connection pool of a client. */
export interface HttpOptions {
  readonly connectionsPerHost: number
  readonly connectTimeoutMs: number
  readonly headersTimeoutMs: number
  readonly bodyTimeoutMs: number
  /** PEM text of certificates to trust beside the system's. */
  readonly ca: string | undefined
  readonly skipVerify: boolean
  /** PEM texts by which servers know this client. */
  readonly clientCertificate?: { readonly cert: string; readonly key: string } | undefined
  /** Path of a Unix socket that is asked whatever the address is. */
  readonly socketPath?: string
  /** On the way of requests that have a route. */
  readonly proxy?: ProxyOptions | undefined
  readonly clock?: Clock
}

const KEEP_ALIVE_MS = 30_000
const PEER_CONNECT_MS = 5_000

/** undici costs about 50 ms to load: only who talks to a server pays. */
export async function openAgent(options: HttpOptions): Promise<Dispatcher> {
  const [{ Agent }, trust] = await Promise.all([import('undici'), trustOf(options)])
  const { socketPath } = options
  return new Agent({
    connections: options.connectionsPerHost,
    pipelining: 1,
    allowH2: false, // nothing gained here, and its flow control costs
    headersTimeout: options.headersTimeoutMs,
    bodyTimeout: options.bodyTimeoutMs,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connect: { ...trust, ...(socketPath === undefined ? {} : { socketPath }), timeout: options.connectTimeoutMs },
  })
}

/** The same through a proxy: requests for `http://` in the absolute form, those for `https://` in a tunnel. */
export async function openProxyAgent(url: string, options: HttpOptions): Promise<Dispatcher> {
  const [{ Pool, ProxyAgent }, trust] = await Promise.all([import('undici'), trustOf(options)])
  const limits = { connections: options.connectionsPerHost, pipelining: 1, keepAliveTimeout: KEEP_ALIVE_MS }
  // What is said of the agent is not said of its connections to the proxy: those would offer HTTP/2.
  const tls = { ...trust, allowH2: false }
  return new ProxyAgent({
    uri: url,
    allowH2: false,
    connectTimeout: options.connectTimeoutMs,
    requestTls: tls,
    proxyTls: tls,
    factory: (origin, given) => new Pool(origin, Object.assign({}, given, limits)),
    // For tunnels: a proxy that says nothing to CONNECT must not hold it up for long.
    clientFactory: (origin, given) =>
      new Pool(origin, Object.assign({}, given, { allowH2: false, headersTimeout: options.headersTimeoutMs })),
  })
}

/**
 * The same through the HTTP proxy of a Dragonfly peer, which stands in the middle of TLS with a certificate of its own making: the cluster is trusted, as the original does. What is read is compared
 * with its digest.
 */
export function openPeerAgent(url: string, options: HttpOptions): Promise<Dispatcher> {
  const connectTimeoutMs = Math.min(options.connectTimeoutMs, PEER_CONNECT_MS)
  return openProxyAgent(url, { ...options, connectTimeoutMs, skipVerify: true, clientCertificate: undefined })
}

async function trustOf({ ca, skipVerify, clientCertificate }: HttpOptions): Promise<ConnectionOptions> {
  return {
    ...(ca === undefined ? {} : { ca: [...(await import('node:tls')).getCACertificates('default'), ca] }),
    ...clientCertificate,
    rejectUnauthorized: !skipVerify,
  }
}
