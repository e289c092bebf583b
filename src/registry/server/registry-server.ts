import { createServer as createHttpServer } from 'node:http'
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { RegistryError } from '../errors.ts'
import type { RouteCount } from './counters.ts'
import { Counters } from './counters.ts'
import { errno } from './durable.ts'
import { Exchange } from './exchange.ts'
import type { Fault, PlannedFault, RouteName } from './faults.ts'
import { FaultPlan } from './faults.ts'
import { findRoute, serveRoute } from './routes.ts'
import type { ServerAuth } from './server-auth.ts'
import { Gate } from './server-auth.ts'
import { SpecError } from './spec-error.ts'
import { Store } from './store.ts'
import { Throttle } from './throttle.ts'
import { UploadSessions } from './upload-sessions.ts'

export interface RegistryServerOptions {
  /** Folder of the store; made if absent. Only one server may use it at a time. */
  readonly root: string
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** PEM texts; HTTPS when given. */
  readonly tls?: { readonly key: string; readonly cert: string }
  readonly auth?: ServerAuth
  /** Milliseconds since 1970, by which tokens expire; default the system's clock. */
  readonly now?: () => number
  /** Before each answer. */
  readonly latencyMs?: number
  /** Shared by all bodies, both ways. */
  readonly bytesPerSecond?: number
  /** A line for each request that failed inside of the server (never for what a client did wrong). */
  readonly onError?: (line: string) => void
}

/** A running embedded registry. */
export interface RegistryServer {
  /** `http://127.0.0.1:5000`, no slash at the end. */
  readonly url: string
  /** `127.0.0.1:5000`: the host part of references. */
  readonly host: string
  readonly port: number
  /** May be changed at run time. */
  latencyMs: number
  bytesPerSecond: number | undefined
  /** The next matching requests (those that are authorised, and all to `/token`) go wrong, in the order of the calls. */
  fail(...faults: readonly PlannedFault[]): void
  /** Forgets faults that were not used; gives how many requests they still waited for. */
  clearFaults(): number
  /** Every bearer token given out so far is refused from now on. */
  expireTokens(): void
  counters(): Readonly<Record<RouteName, RouteCount>>
  resetCounters(): void
  /** Breaks connections; resolves when they are closed. */
  close(): Promise<void>
}

/** Starts it; resolves when it listens. RegistryError 'BAD_CONFIG' when it cannot. */
export async function startRegistry(options: RegistryServerOptions): Promise<RegistryServer> {
  let server: EmbeddedRegistry | undefined
  try {
    server = new EmbeddedRegistry(options, await Store.open(options.root))
    await server.listen()
    return server
  } catch (error) {
    await server?.close()
    const code = errno(error)
    const hint = code === 'EADDRINUSE' ? '; another program listens there: choose another port' : ''
    const why = error instanceof Error ? error.message : String(error)
    throw new RegistryError(
      'BAD_CONFIG',
      `cannot start the registry at ${options.host}:${options.port} on ${options.root}: ${why}${hint}`,
      { cause: error },
    )
  }
}

class EmbeddedRegistry implements RegistryServer {
  latencyMs: number
  readonly #options: RegistryServerOptions
  readonly #server: Server
  readonly #store: Store
  readonly #sessions: UploadSessions
  readonly #gate: Gate
  readonly #faults = new FaultPlan()
  readonly #counters = new Counters()
  readonly #throttle: Throttle
  readonly #running = new Set<Promise<void>>()

  constructor(options: RegistryServerOptions, store: Store) {
    this.#options = options
    this.#store = store
    this.#sessions = new UploadSessions(store)
    this.#gate = new Gate(options.auth, options.tls === undefined ? 'http' : 'https', options.now ?? Date.now)
    this.#throttle = new Throttle(options.bytesPerSecond)
    this.latencyMs = options.latencyMs ?? 0
    const listener: RequestListener = (request, response) => {
      const running = this.#handle(request, response).finally(() => this.#running.delete(running))
      this.#running.add(running)
    }
    this.#server = options.tls === undefined ? createHttpServer(listener) : createHttpsServer(options.tls, listener)
    this.#server.keepAliveTimeout = 60_000
    this.#server.requestTimeout = 0 // an upload may take long; idle ones are seen by the socket's timeout
    this.#server.timeout = 300_000
  }

  get url(): string {
    return `${this.#options.tls === undefined ? 'http' : 'https'}://${this.host}`
  }

  get host(): string {
    const { host } = this.#options
    return `${host.includes(':') ? `[${host}]` : host}:${this.port}`
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port // a TCP server that listens
  }

  get bytesPerSecond(): number | undefined {
    return this.#throttle.bytesPerSecond
  }

  set bytesPerSecond(value: number | undefined) {
    this.#throttle.bytesPerSecond = value
  }

  fail(...faults: readonly PlannedFault[]): void {
    for (const fault of faults) this.#faults.add(fault)
  }

  clearFaults(): number {
    return this.#faults.clear()
  }

  expireTokens(): void {
    this.#gate.expireTokens()
  }

  counters(): Readonly<Record<RouteName, RouteCount>> {
    return this.#counters.snapshot()
  }

  resetCounters(): void {
    this.#counters.reset()
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(this.#options.port, this.#options.host, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
  }

  async close(): Promise<void> {
    const closed = this.#server.listening
      ? new Promise<void>((resolve) => this.#server.close(() => resolve()))
      : Promise.resolve()
    this.#server.closeAllConnections()
    await closed
    await Promise.all(this.#running)
    await this.#sessions.close()
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = URL.parse(request.url ?? '/', 'http://registry.invalid')
    const found = findRoute(url?.pathname ?? '/')
    this.#counters.request(found.route)
    if (url === null) return void response.writeHead(400).end()
    const shared = { request, response, url, route: found.route, counters: this.#counters, throttle: this.#throttle }
    const plain = new Exchange({ ...shared, fault: undefined })
    try {
      if (this.latencyMs > 0) await delay(this.latencyMs, undefined, { signal: plain.gone })
      if (found.route !== 'token') this.#gate.check(plain, found.access(plain))
      const fault = this.#faults.take({ method: plain.method, route: found.route, url: request.url ?? '' })
      if (fault !== undefined && (await sabotage(plain, fault, request.url ?? ''))) return
      const exchange = new Exchange({ ...shared, fault })
      await serveRoute(exchange, found, { store: this.#store, sessions: this.#sessions, gate: this.#gate })
    } catch (error) {
      await this.#failed(plain, response, error)
    }
    // A body that nobody read would hold up the next request of the connection.
    if (!request.readableEnded) request.resume()
  }

  async #failed(exchange: Exchange, response: ServerResponse, error: unknown): Promise<void> {
    if (exchange.gone.aborted || response.headersSent) return exchange.destroy()
    if (error instanceof SpecError) return exchange.error(error)
    const line = `${exchange.method} ${exchange.url.pathname}: ${error instanceof Error ? error.message : String(error)}`
    this.#options.onError?.(line)
    return exchange.error(
      new SpecError('UNKNOWN', 'the registry failed; its log says more', {
        status: errno(error) === 'ENOSPC' ? 507 : 500,
      }),
    )
  }
}

/** Faults that need no real answer. True when the request is done with. */
async function sabotage(exchange: Exchange, fault: Fault, path: string): Promise<boolean> {
  if (fault.kind === 'reset') {
    exchange.request.socket.resetAndDestroy()
    return true
  }
  if (fault.kind === 'redirect') {
    await exchange.empty(fault.status ?? 307, { location: fault.to.replace('{path}', path) })
    return true
  }
  if (fault.kind !== 'status') return false
  const bytes = Buffer.from(
    fault.body ?? JSON.stringify({ errors: [{ code: 'UNKNOWN', message: 'wanted by a test' }] }),
  )
  await exchange.send(
    fault.status,
    { 'content-type': 'application/json', 'content-length': String(bytes.length), ...fault.headers },
    { bytes },
  )
  return true
}
