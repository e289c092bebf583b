import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Exchange } from './exchange.ts'
import { SpecError } from './spec-error.ts'

/** Who may use the embedded registry. Users are names with their passwords. */
export type ServerAuth =
  | { readonly kind: 'basic'; readonly users: Readonly<Record<string, string>> }
  | {
      /** Tokens come from `/token` of the same server, by GET with Basic, or by OAuth2 POST. */
      readonly kind: 'bearer'
      readonly users: Readonly<Record<string, string>>
      readonly tokenLifeMs: number
      /** Everybody may read. */
      readonly anonymousPull?: boolean
      /** Refresh tokens that the OAuth2 POST takes. */
      readonly identityTokens?: readonly string[]
    }

interface Grant {
  readonly expiresAt: number
  /** `repository:a:pull`, … */
  readonly allowed: ReadonlySet<string>
}

/** What a request wants to do where. */
export interface Access {
  readonly name: string | undefined
  readonly actions: readonly ('pull' | 'push' | 'delete')[]
  readonly mountFrom: string | undefined
}

const SERVICE = 'nydus-registry'
const MAX_TOKENS = 10_000

/** Decides on each request, and gives out tokens. Tokens live in memory only. */
export class Gate {
  readonly #auth: ServerAuth | undefined
  readonly #scheme: 'http' | 'https'
  readonly #now: () => number
  readonly #tokens = new Map<string, Grant>()

  constructor(auth: ServerAuth | undefined, scheme: 'http' | 'https', now: () => number) {
    this.#auth = auth
    this.#scheme = scheme
    this.#now = now
  }

  get givesTokens(): boolean {
    return this.#auth?.kind === 'bearer'
  }

  expireTokens(): void {
    this.#tokens.clear()
  }

  /** Throws UNAUTHORIZED with the challenge. */
  check(exchange: Exchange, access: Access): void {
    const auth = this.#auth
    if (auth === undefined) return
    const header = exchange.header('authorization') ?? ''
    if (auth.kind === 'basic') {
      if (userOf(header, auth.users) === undefined) throw refused('log in', `Basic realm="${SERVICE}"`)
      return
    }
    const grant = this.#tokens.get(header.replace(/^bearer\s+/i, ''))
    const wanted = wantedGrants(access)
    if (grant === undefined || grant.expiresAt < this.#now())
      throw refused('log in', this.#challenge(exchange, wanted, header === '' ? '' : 'invalid_token'))
    if (!wanted.every((scope) => grant.allowed.has(scope)))
      throw refused('the token does not cover this', this.#challenge(exchange, wanted, 'insufficient_scope'))
  }

  /** `/token`. */
  async serveToken(exchange: Exchange): Promise<void> {
    const auth = this.#auth
    if (auth?.kind !== 'bearer') throw new SpecError('UNSUPPORTED', 'this registry gives no tokens', { status: 404 })
    const form =
      exchange.method === 'POST'
        ? new URLSearchParams((await exchange.wholeBody(65_536)).toString('utf8'))
        : exchange.url.searchParams
    const user =
      exchange.method === 'POST' ? postUser(form, auth) : userOf(exchange.header('authorization') ?? '', auth.users)
    const presented = exchange.method === 'POST' || exchange.header('authorization') !== undefined
    if (user === undefined && (presented || auth.anonymousPull !== true))
      throw refused('wrong user or password', `Basic realm="${SERVICE}"`)
    const scopes = form.getAll('scope').flatMap((scope) => scope.split(' '))
    const allowed = new Set(scopes.flatMap(splitScope).filter((scope) => user !== undefined || scope.endsWith(':pull')))
    const token = randomBytes(24).toString('base64url')
    const [oldest] = this.#tokens.keys()
    if (this.#tokens.size >= MAX_TOKENS && oldest !== undefined) this.#tokens.delete(oldest)
    const now = this.#now()
    this.#tokens.set(token, { expiresAt: now + auth.tokenLifeMs, allowed })
    const life = { expires_in: auth.tokenLifeMs / 1000, issued_at: new Date(now).toISOString() }
    return exchange.json(200, { token, access_token: token, ...life }, { 'cache-control': 'no-store' })
  }

  #challenge(exchange: Exchange, wanted: readonly string[], error: string): string {
    const host = exchange.header('host') ?? ''
    const scope = joinScopes(wanted)
    return [
      `Bearer realm="${this.#scheme}://${/^[A-Za-z0-9.:[\]-]+$/.test(host) ? host : 'localhost'}/token"`,
      `service="${SERVICE}"`,
      ...(scope === '' ? [] : [`scope="${scope}"`]),
      ...(error === '' ? [] : [`error="${error}"`]),
    ].join(',')
  }
}

function wantedGrants({ name, actions, mountFrom }: Access): string[] {
  const own = name === undefined ? [] : actions.map((action) => `repository:${name}:${action}`)
  return mountFrom === undefined ? own : [...own, `repository:${mountFrom}:pull`]
}

/** `repository:a:pull,push` is `repository:a:pull` and `repository:a:push`. */
function splitScope(scope: string): string[] {
  const colon = scope.lastIndexOf(':')
  if (colon < 0) return []
  return scope
    .slice(colon + 1)
    .split(',')
    .map((action) => `${scope.slice(0, colon)}:${action}`)
}

function joinScopes(scopes: readonly string[]): string {
  const resources = Map.groupBy(scopes, (scope) => scope.slice(0, scope.lastIndexOf(':')))
  return [...resources]
    .map(([resource, all]) => `${resource}:${all.map((scope) => scope.slice(resource.length + 1)).join(',')}`)
    .join(' ')
}

function postUser(form: URLSearchParams, auth: Extract<ServerAuth, { kind: 'bearer' }>): string | undefined {
  if (form.get('grant_type') === 'refresh_token') {
    const token = form.get('refresh_token') ?? ''
    return (auth.identityTokens ?? []).some((known) => sameText(known, token)) ? '<token>' : undefined
  }
  return checkUser(form.get('username') ?? '', form.get('password') ?? '', auth.users)
}

function userOf(header: string, users: Readonly<Record<string, string>>): string | undefined {
  const match = /^basic\s+([A-Za-z0-9+/]+={0,2})$/i.exec(header)
  if (match === null) return undefined
  const text = Buffer.from(match[1] ?? '', 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon < 0 ? undefined : checkUser(text.slice(0, colon), text.slice(colon + 1), users)
}

function checkUser(user: string, password: string, users: Readonly<Record<string, string>>): string | undefined {
  const known = Object.hasOwn(users, user) ? users[user] : undefined
  return sameText(known ?? randomBytes(16).toString('hex'), password) && known !== undefined ? user : undefined
}

/** In the same time, whatever differs. */
function sameText(a: string, b: string): boolean {
  return timingSafeEqual(createHash('sha256').update(a).digest(), createHash('sha256').update(b).digest())
}

function refused(message: string, challenge: string): SpecError {
  return new SpecError('UNAUTHORIZED', message, { headers: { 'www-authenticate': challenge } })
}
