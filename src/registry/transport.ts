import { Authorizer } from './authorizer.ts'
import type { Endpoint } from './endpoint.ts'
import { RegistryError } from './errors.ts'
import type { Route } from './forward-proxy.ts'
import type { HttpOptions } from './agents.ts'
import type { BodySink, HttpAnswer, HttpHeaders, HttpRequest } from './http.ts'
import { abortable } from './abortable.ts'
import { Http } from './http.ts'
import { isRecord } from './json.ts'
import type { Clock, RetryPolicy } from './retry.ts'
import { noteRetryAfter, Tries } from './retry.ts'
import type { Secret } from './secret.ts'

/** One request to a registry, as the rest of the room sees it. */
export interface RegistryRequest {
  readonly endpoint: Endpoint
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Path and query from `/v2/`, or a whole URL (an upload's Location). */
  readonly to: string | URL
  readonly scopes: readonly string[]
  /** For messages: `read blob sha256:… of library/node`. */
  readonly what: string
  /** Statuses that are no error. */
  readonly accept: readonly number[]
  readonly headers?: Readonly<Record<string, string>>
  /** Called again for each try. */
  readonly body?: () => Uint8Array | AsyncIterable<Uint8Array>
  readonly signal: AbortSignal
  /** Default true: 429, 5xx and broken connections are tried again. */
  readonly retry?: boolean
  /** Given: the request, and what it is redirected to, may go through the proxy. Logins never do. */
  readonly route?: Route | undefined
}

/** An answer of an accepted status, and where it came from in the end. */
export interface RegistryAnswer {
  readonly answer: HttpAnswer
  readonly url: URL
  readonly redirected: boolean
}

export interface TransportOptions {
  readonly http: HttpOptions
  readonly clock: Clock
  readonly retry: RetryPolicy
  readonly userAgent: string
  readonly redirect: { readonly scheme?: 'http' | 'https'; readonly host?: string }
}

type Exchange = (request: HttpRequest) => Promise<HttpAnswer>
type Accept = (status: number, headers: HttpHeaders) => BodySink | undefined

const MAX_REDIRECTS = 10
/** A stale token, then a challenge for another scope: a third refusal is final. */
const MAX_REFUSALS = 2
const LOGIN_HEADERS = /auth|cookie|token|key|secret/i
/** For GET and HEAD all five; for the rest only those that keep the method. */
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])
const KEEPS_METHOD: ReadonlySet<number> = new Set([307, 308])

/** Requests to registries: logins, redirects, retries, and errors with a code. */
export class Transport {
  readonly clock: Clock
  readonly retry: RetryPolicy
  readonly #options: TransportOptions
  readonly #http: Http
  readonly #authorizer: Authorizer
  readonly #closing = new AbortController()

  constructor(options: TransportOptions) {
    this.#options = options
    this.clock = options.clock
    this.retry = options.retry
    this.#http = new Http(options.http)
    const { clock, retry, userAgent } = options
    this.#authorizer = new Authorizer({ http: this.#http, clock, retry, userAgent, closing: this.#closing.signal })
  }

  /** The answer, its body still to be read. Throws RegistryError unless the status is accepted. */
  send(request: RegistryRequest): Promise<RegistryAnswer> {
    return this.#retried(request, () => this.#authorised(request, (wire) => this.#http.request(wire)))
  }

  /** As `send`, but the body of an accepted answer goes into the sink that `accept` gives. Not retried: what is filled is the caller's knowledge. */
  sendInto(request: RegistryRequest, accept: Accept): Promise<RegistryAnswer> {
    const told: Accept = (status, headers) => {
      const sink = accept(status, headers)
      if (sink !== undefined) request.endpoint.answered() // others need not wait for this body
      return sink
    }
    return this.#once(request, () => this.#authorised(request, (wire) => this.#http.requestInto(wire, told)))
  }

  /** As `sendInto`, to a place outside of the registry that it redirected us to before: no login. */
  sendIntoElsewhere(request: RegistryRequest, url: URL, accept: Accept): Promise<RegistryAnswer> {
    return this.#once(request, async () => {
      const { method, route } = request
      const headers = { ...this.#foreignHeaders(request), ...this.#plainHeaders(request) }
      const wire = { method, url, headers, signal: this.#signal(request), route }
      return { answer: await this.#http.requestInto(wire, accept), url, redirected: true }
    })
  }

  /** The tries of something that takes several requests, at most `most`. Closing the client ends the wait between them. */
  tries(signal: AbortSignal, most = Number.POSITIVE_INFINITY): Tries {
    const policy = { ...this.retry, attempts: Math.min(this.retry.attempts, most) }
    return new Tries(policy, this.clock, AbortSignal.any([signal, this.#closing.signal]))
  }

  forgetLogins(): void {
    this.#authorizer.forget()
  }

  async close(): Promise<void> {
    this.#closing.abort(new RegistryError('CLOSED', 'cannot ask the registry: the client was closed'))
    await this.#http.close()
  }

  async #retried(request: RegistryRequest, act: () => Promise<RegistryAnswer>): Promise<RegistryAnswer> {
    const tries = new Tries(
      request.retry === false ? { ...this.retry, attempts: 1 } : this.retry,
      this.clock,
      this.#signal(request),
    )
    for (;;) {
      try {
        return await this.#once(request, act)
      } catch (error) {
        await tries.failed(error)
      }
    }
  }

  async #once(request: RegistryRequest, act: () => Promise<RegistryAnswer>): Promise<RegistryAnswer> {
    try {
      const result = await act()
      if (!request.accept.includes(result.answer.status)) throw await this.#statusError(request, result.answer)
      return result
    } catch (error) {
      if (this.#closing.signal.aborted)
        throw new RegistryError('CLOSED', `cannot ${request.what}: the client was closed`, { cause: error })
      if (request.signal.aborted)
        throw new RegistryError('ABORTED', `cannot ${request.what}: the caller no longer waits`, {
          cause: request.signal.reason,
        })
      throw error
    }
  }

  /** Logs in as far as the registry asks, then follows redirects. */
  async #authorised(request: RegistryRequest, exchange: Exchange): Promise<RegistryAnswer> {
    const { endpoint } = request
    // `first` never rejects: what is thrown here is the end of this caller's patience, and going round again would never end.
    while (!endpoint.known && endpoint.first !== undefined) await abortable(endpoint.first, this.#signal(request))
    if (endpoint.known) return this.#answerRefusals(request, exchange)
    endpoint.firstBegins()
    try {
      return await this.#findScheme(request, exchange)
    } finally {
      endpoint.firstEnds()
    }
  }

  async #findScheme(request: RegistryRequest, exchange: Exchange): Promise<RegistryAnswer> {
    try {
      return await this.#answerRefusals(request, exchange)
    } catch (error) {
      if (!request.endpoint.fallsBack(error)) throw error
    }
    try {
      return await this.#answerRefusals(request, exchange)
    } catch (error) {
      request.endpoint.forgetFallback()
      throw error
    }
  }

  async #answerRefusals(request: RegistryRequest, exchange: Exchange): Promise<RegistryAnswer> {
    const signal = this.#signal(request)
    for (let refusals = 0; ; refusals += 1) {
      const { endpoint } = request
      const target = {
        host: endpoint.host,
        origin: endpoint.origin,
        credentials: endpoint.credentials,
        scopes: request.scopes,
      }
      const login = await this.#authorizer.header(target, signal)
      const result = await this.#follow(request, login, exchange)
      const { answer } = result
      const again =
        answer.status === 401 &&
        !result.redirected &&
        refusals < MAX_REFUSALS &&
        (await this.#authorizer.refused(target, login, answer.headers, signal))
      if (!again) {
        endpoint.answered()
        return result
      }
      answer.discard()
    }
  }

  /** Credentials and the caller's own headers go to the registry's origin only. */
  async #follow(request: RegistryRequest, login: Secret | undefined, exchange: Exchange): Promise<RegistryAnswer> {
    const { endpoint } = request
    let url = typeof request.to === 'string' ? endpoint.url(request.to) : request.to
    for (let redirects = 0; ; redirects += 1) {
      const home = url.origin === new URL(endpoint.origin).origin
      const headers = {
        ...(home ? endpoint.headers : this.#foreignHeaders(request)),
        ...this.#plainHeaders(request),
        ...(home && login !== undefined ? { authorization: login.reveal() } : {}),
      }
      const body = request.body === undefined ? {} : { body: request.body() }
      const { method, route } = request
      const answer = await exchange({ method, url, headers, signal: this.#signal(request), route, ...body })
      const next = this.#redirectTarget(request, url, answer)
      if (next === undefined) return { answer, url, redirected: redirects > 0 }
      answer.discard()
      if (redirects === MAX_REDIRECTS)
        throw new RegistryError('BAD_RESPONSE', `cannot ${request.what}: more than ${MAX_REDIRECTS} redirects`)
      url = next
    }
  }

  #redirectTarget(request: RegistryRequest, from: URL, answer: HttpAnswer): URL | undefined {
    if (!REDIRECTS.has(answer.status) || request.accept.includes(answer.status)) return undefined
    const safe = request.method === 'GET' || request.method === 'HEAD'
    if (!safe && !KEEPS_METHOD.has(answer.status)) return undefined
    const location = answer.headers['location']
    const url = typeof location === 'string' ? URL.parse(location, from.href) : null
    if (
      url === null ||
      (url.protocol !== 'http:' && url.protocol !== 'https:') ||
      url.username !== '' ||
      url.password !== ''
    ) {
      answer.discard()
      throw new RegistryError(
        'BAD_RESPONSE',
        `cannot ${request.what}: ${from.host} redirects (${answer.status}) to no usable address`,
        { status: answer.status },
      )
    }
    if (url.origin === from.origin) return url
    const { scheme, host } = this.#options.redirect
    if (scheme !== undefined) url.protocol = scheme
    if (host !== undefined) url.host = host
    return url
  }

  /** The caller's own headers are for the proxy too, which sees those of a redirect's target; what may be a login is not for that. */
  #foreignHeaders({ endpoint, route }: RegistryRequest): Record<string, string> {
    if (route === undefined || !this.#http.isProxied) return {}
    return Object.fromEntries(Object.entries(endpoint.headers).filter(([name]) => !LOGIN_HEADERS.test(name)))
  }

  #plainHeaders(request: RegistryRequest): Record<string, string> {
    return { 'user-agent': this.#options.userAgent, ...request.headers }
  }

  #signal(request: RegistryRequest): AbortSignal {
    let signal = this.#signals.get(request)
    if (signal === undefined) {
      signal = AbortSignal.any([request.signal, this.#closing.signal])
      this.#signals.set(request, signal)
    }
    return signal
  }

  /** One joined signal a request, however many steps it takes. */
  readonly #signals = new WeakMap<RegistryRequest, AbortSignal>()

  async #statusError(request: RegistryRequest, answer: HttpAnswer): Promise<RegistryError> {
    const error = statusError(request, answer.status, specMessage(await answer.errorText()))
    const header = answer.headers['retry-after']
    noteRetryAfter(error, typeof header === 'string' ? header : undefined, this.clock.now())
    return error
  }
}

function statusError(request: RegistryRequest, status: number, detail: string): RegistryError {
  const said = `cannot ${request.what}: ${request.endpoint.host} answered ${status}${detail === '' ? '' : ` (${detail})`}`
  const options = { status }
  if (status === 401)
    return new RegistryError('UNAUTHORIZED', `${said}; log in with "docker login ${request.endpoint.host}"`, options)
  if (status === 403)
    return new RegistryError('FORBIDDEN', `${said}; ask for access, or log in as somebody who has it`, options)
  if (status === 404) return new RegistryError('NOT_FOUND', `${said}; check the name`, options)
  if (status === 405 || status === 501)
    return new RegistryError('UNSUPPORTED', `${said}; the registry does not allow this`, options)
  if (status === 408) return new RegistryError('TIMEOUT', `${said}; try again later`, options)
  if (status === 429) return new RegistryError('THROTTLED', `${said}; wait, or log in for a higher limit`, options)
  if (status >= 500) return new RegistryError('UNAVAILABLE', `${said}; try again later`, options)
  if (status >= 400) return new RegistryError('REFUSED', said, options)
  return new RegistryError('BAD_RESPONSE', `${said}, wanted ${request.accept.join(' or ')}`, options)
}

/** Codes and messages of an error body of the distribution specification; other bodies are not shown (they are HTML, or worse). */
function specMessage(text: string): string {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return '' // no JSON: nothing to show beside the status
  }
  const errors = isRecord(value) && Array.isArray(value['errors']) ? value['errors'] : []
  const lines = errors
    .slice(0, 3)
    .filter(isRecord)
    .map((entry) => `${String(entry['code'])}: ${String(entry['message'])}`)
  // One line, printable, short, and without a header that it repeats: it comes from outside.
  return lines
    .join('; ')
    .replace(/\b(basic|bearer)\s+\S+/gi, '$1 [secret]')
    .replace(/[^\x20-\x7e]/g, '?')
    .slice(0, 300)
}
