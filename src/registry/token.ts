import type { Credentials } from './credentials.ts'
import { RegistryError } from './errors.ts'
import type { Http, HttpAnswer } from './http.ts'
import { isRecord } from './json.ts'
import type { Clock, RetryPolicy } from './retry.ts'
import { noteRetryAfter, Tries } from './retry.ts'
import { Secret } from './secret.ts'

/** What to ask a token server for (distribution, `docs/spec/auth/token.md` and `oauth.md`). */
export interface TokenRequest {
  readonly realm: URL
  readonly service: string | undefined
  readonly scopes: readonly string[]
  readonly credentials: Credentials
  /** The registry, for messages. */
  readonly host: string
}

export interface TokenContext {
  readonly http: Http
  readonly clock: Clock
  readonly retry: RetryPolicy
  readonly userAgent: string
  readonly signal: AbortSignal
}

/** A token and its life by our own clock. */
export interface IssuedToken {
  readonly token: Secret
  readonly validFrom: number
  readonly lifeMs: number
}

const CLIENT_ID = 'nydus-node'
const MAX_TOKEN_ANSWER = 1 << 20
/** The specification's default. */
const DEFAULT_LIFE_S = 60
const MAX_LIFE_S = 24 * 3600
/** Answers of servers without the OAuth2 endpoint (404, 405), or which want Basic there (401: quay.io; 400: others). */
const NO_OAUTH: ReadonlySet<number> = new Set([400, 401, 404, 405])

/** Gets a token: by OAuth2 POST for an identity token (then by GET where there is no POST), by GET for the rest. */
export async function fetchToken(request: TokenRequest, context: TokenContext): Promise<IssuedToken> {
  const tries = new Tries(context.retry, context.clock, context.signal)
  for (;;) {
    try {
      return await once(request, context)
    } catch (error) {
      await tries.failed(error)
    }
  }
}

async function once(request: TokenRequest, context: TokenContext): Promise<IssuedToken> {
  if (request.credentials.kind === 'identity-token') {
    const answer = await post(request, request.credentials.token, context)
    if (!NO_OAUTH.has(answer.status)) return readToken(answer, request, context)
    answer.discard()
  }
  return readToken(await get(request, context), request, context)
}

function post(request: TokenRequest, refreshToken: Secret, context: TokenContext): Promise<HttpAnswer> {
  const form = new URLSearchParams({
    grant_type: 'refresh_token',
    client_id: CLIENT_ID,
    refresh_token: refreshToken.reveal(),
  })
  if (request.service !== undefined) form.set('service', request.service)
  if (request.scopes.length > 0) form.set('scope', request.scopes.join(' '))
  return context.http.request({
    method: 'POST',
    url: request.realm,
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      'user-agent': context.userAgent,
      accept: 'application/json',
    },
    body: Buffer.from(form.toString()),
    signal: context.signal,
  })
}

function get(request: TokenRequest, context: TokenContext): Promise<HttpAnswer> {
  const { credentials } = request
  const url = new URL(request.realm)
  if (request.service !== undefined) url.searchParams.set('service', request.service)
  for (const scope of request.scopes) url.searchParams.append('scope', scope)
  const headers: Record<string, string> = { 'user-agent': context.userAgent, accept: 'application/json' }
  if (credentials.kind === 'basic') {
    url.searchParams.set('account', credentials.username)
    headers['authorization'] = basic(credentials.username, credentials.password)
  } else if (credentials.kind === 'identity-token') {
    headers['authorization'] = basic(credentials.username === '' ? '<token>' : credentials.username, credentials.token)
  }
  return context.http.request({ method: 'GET', url, headers, signal: context.signal })
}

function basic(username: string, password: Secret): string {
  return `Basic ${Buffer.from(`${username}:${password.reveal()}`).toString('base64')}`
}

async function readToken(answer: HttpAnswer, request: TokenRequest, context: TokenContext): Promise<IssuedToken> {
  const at = `the token server ${request.realm.host} of ${request.host}`
  if (answer.status !== 200) {
    answer.discard() // its text may repeat what we sent
    throw refusal(answer, at, request, context)
  }
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(await answer.bytes(MAX_TOKEN_ANSWER)).toString('utf8'))
  } catch (error) {
    if (error instanceof RegistryError) throw error
    // The parser's message quotes the text, which may hold the token: no cause.
    throw new RegistryError('BAD_RESPONSE', `cannot use the answer of ${at}: it is not JSON`)
  }
  const fields = isRecord(value) ? value : {}
  const token = typeof fields['token'] === 'string' && fields['token'] !== '' ? fields['token'] : fields['access_token']
  // Visible ASCII only: it goes into a header.
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token))
    throw new RegistryError('BAD_RESPONSE', `cannot use the answer of ${at}: it has no token`)
  return { token: new Secret(token), ...lifeOf(fields, context.clock.now()) }
}

/** `issued_at` counts only when the clocks agree to within half of the token's life. */
function lifeOf(fields: Readonly<Record<string, unknown>>, nowMs: number): { validFrom: number; lifeMs: number } {
  const expiresIn =
    typeof fields['expires_in'] === 'number' && fields['expires_in'] > 0 ? fields['expires_in'] : DEFAULT_LIFE_S
  const lifeMs = Math.min(expiresIn, MAX_LIFE_S) * 1000
  const issuedAt = typeof fields['issued_at'] === 'string' ? Date.parse(fields['issued_at']) : Number.NaN
  const age = nowMs - issuedAt
  return { validFrom: age > 0 && age < lifeMs / 2 ? issuedAt : nowMs, lifeMs }
}

function refusal(answer: HttpAnswer, at: string, request: TokenRequest, context: TokenContext): RegistryError {
  const { status } = answer
  if (status === 429 || status >= 500) {
    const error = new RegistryError(
      status === 429 ? 'THROTTLED' : 'UNAVAILABLE',
      `${at} answered ${status}; try again later`,
      { status },
    )
    const header = answer.headers['retry-after']
    noteRetryAfter(error, typeof header === 'string' ? header : undefined, context.clock.now())
    return error
  }
  const next =
    request.credentials.kind === 'anonymous'
      ? `log in with "docker login ${request.host}"`
      : 'check user and password, or log in anew'
  return new RegistryError(
    'UNAUTHORIZED',
    `${at} answered ${status} for ${request.scopes.join(' ') || 'no scope'}; ${next}`,
    { status },
  )
}
