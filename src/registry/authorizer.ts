import type { Challenge } from './challenge.ts'
import { parseChallenges } from './challenge.ts'
import type { Credentials, CredentialSource } from './credentials.ts'
import { RegistryError } from './errors.ts'
import type { Http, HttpHeaders } from './http.ts'
import { abortable } from './abortable.ts'
import { isLoopback } from './reference.ts'
import type { Clock, RetryPolicy } from './retry.ts'
import { Secret } from './secret.ts'
import type { TokenRequest } from './token.ts'
import { fetchToken } from './token.ts'

/** Where and for what a request needs to be authorised. */
export interface AuthTarget {
  /** The registry's name, as credentials are filed. */
  readonly host: string
  /** Scheme, host and port that are asked. */
  readonly origin: string
  readonly credentials: CredentialSource
  /** `repository:library/node:pull`, … */
  readonly scopes: readonly string[]
}

interface Token {
  readonly header: Secret
  readonly renewAt: number
  readonly expiresAt: number
}

/** The token of one registry and scope, and the one request for it that is under way. */
interface TokenSlot {
  token: Token | undefined
  flight: Promise<Token> | undefined
  /** Scope that the registry itself asked for. */
  asked: string | undefined
  /** After a failed renewal the token that still holds is used, and the next renewal waits until then. */
  notBefore: number
}

/** What one registry wants. */
interface HostState {
  credentials: Credentials | undefined
  challenge: Challenge | undefined
  /** The registry refused the token that the user gave: go by its challenge. */
  registryTokenRefused: boolean
  readonly slots: Map<string, TokenSlot>
}

export interface AuthorizerOptions {
  readonly http: Http
  readonly clock: Clock
  readonly retry: RetryPolicy
  readonly userAgent: string
  /** Aborted by `close`. */
  readonly closing: AbortSignal
}

/** Part of a token's life after which it is renewed while it still holds. */
const RENEW_AT = 0.75
const RENEWAL_PAUSE_MS = 5_000
const MAX_SLOTS = 1_000

/**
 * Authorization headers for registries: learns what a registry wants from its 401, keeps a token per scope, renews it before it expires (in the
 * background, one request however many wait) and after a 401.
 */
export class Authorizer {
  readonly #options: AuthorizerOptions
  readonly #hosts = new Map<string, HostState>()

  constructor(options: AuthorizerOptions) {
    this.#options = options
  }

  /** Forgets what registries want and gave: the credentials have changed. */
  forget(): void {
    this.#hosts.clear()
  }

  /** The header to send, or undefined when none is known to be needed. Throws 'UNAUTHORIZED' and whatever keeps the token server from answering. */
  async header(target: AuthTarget, signal: AbortSignal): Promise<Secret | undefined> {
    const state = await this.#state(target, signal)
    const { credentials, challenge } = state
    if (credentials?.kind === 'registry-token' && !state.registryTokenRefused)
      return new Secret(`Bearer ${credentials.token.reveal()}`)
    if (challenge === undefined) return undefined
    if (challenge.scheme === 'basic')
      return credentials?.kind === 'basic' ? basicHeader(credentials.username, credentials.password) : undefined
    return this.#bearer(target, state, challenge, signal)
  }

  /**
   * A request with `used` was answered 401 with these headers. True when another try makes sense: something was learned, or a token was
   * dropped; false when the registry does not want what we have.
   */
  async refused(
    target: AuthTarget,
    used: Secret | undefined,
    headers: HttpHeaders,
    signal: AbortSignal,
  ): Promise<boolean> {
    const state = await this.#state(target, signal)
    const challenge = preferred(parseChallenges(headers['www-authenticate']), state.credentials)
    if (challenge === undefined) return false
    state.challenge = challenge
    if (state.credentials?.kind === 'registry-token') {
      const isOlder = used !== undefined && used.reveal() !== `Bearer ${state.credentials.token.reveal()}`
      if (isOlder && !state.registryTokenRefused) return true // a newer one has come since
      state.registryTokenRefused = true
    }
    if (challenge.scheme === 'basic') return this.#basicRefused(target, state, used, signal)
    const slot = slotOf(state, target)
    slot.asked = challenge.parameters['scope'] ?? slot.asked
    // Another request may have renewed it already: then that one is tried.
    if (slot.token !== undefined && slot.token.header.reveal() === used?.reveal()) slot.token = undefined
    return true
  }

  /** The user may have logged in anew since: then the next try has another header. */
  async #basicRefused(
    target: AuthTarget,
    state: HostState,
    used: Secret | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (used !== undefined) state.credentials = await abortable(target.credentials(target.host), signal)
    const { credentials } = state
    return (
      credentials?.kind === 'basic' &&
      basicHeader(credentials.username, credentials.password).reveal() !== used?.reveal()
    )
  }

  async #state(target: AuthTarget, signal: AbortSignal): Promise<HostState> {
    let state = this.#hosts.get(target.origin)
    if (state === undefined) {
      state = { credentials: undefined, challenge: undefined, registryTokenRefused: false, slots: new Map() }
      this.#hosts.set(target.origin, state)
    }
    state.credentials ??= await abortable(target.credentials(target.host), signal)
    return state
  }

  async #bearer(target: AuthTarget, state: HostState, challenge: Challenge, signal: AbortSignal): Promise<Secret> {
    const { clock } = this.#options
    const slot = slotOf(state, target)
    const now = clock.now()
    if (slot.token !== undefined && now < slot.token.expiresAt) {
      if (now >= slot.token.renewAt && now >= slot.notBefore) this.#renewInBackground(target, state, slot, challenge)
      return slot.token.header
    }
    const token = await abortable(this.#renew(target, state, slot, challenge), signal)
    return token.header
  }

  #renewInBackground(target: AuthTarget, state: HostState, slot: TokenSlot, challenge: Challenge): void {
    this.#renew(target, state, slot, challenge).catch(() => {
      // The old token still holds; when it no longer does, the request that needs a new one reports the failure.
      slot.notBefore = this.#options.clock.now() + RENEWAL_PAUSE_MS
    })
  }

  #renew(target: AuthTarget, state: HostState, slot: TokenSlot, challenge: Challenge): Promise<Token> {
    slot.flight ??= this.#fetch(target, state, slot, challenge)
      .catch((error: unknown) => {
        // Perhaps the registry names another token server by now: it is asked again, unless the old token still does.
        const holds = slot.token !== undefined && this.#options.clock.now() < slot.token.expiresAt
        if (!holds && state.challenge === challenge) state.challenge = undefined
        throw error
      })
      .finally(() => {
        slot.flight = undefined
      })
    return slot.flight
  }

  async #fetch(target: AuthTarget, state: HostState, slot: TokenSlot, challenge: Challenge): Promise<Token> {
    const { clock, http, retry, userAgent, closing } = this.#options
    // Asked anew each time, so that a login made since then counts.
    const credentials = await abortable(target.credentials(target.host), closing)
    if (credentials.kind !== 'registry-token') state.credentials = credentials
    const request: TokenRequest = {
      realm: realmOf(challenge, target, credentials),
      service: challenge.parameters['service'],
      scopes: unionOfScopes([...target.scopes, ...(slot.asked?.split(' ') ?? [])]),
      credentials,
      host: target.host,
    }
    const issued = await fetchToken(request, { http, clock, retry, userAgent, signal: closing })
    slot.token = {
      header: new Secret(`Bearer ${issued.token.reveal()}`),
      renewAt: issued.validFrom + issued.lifeMs * RENEW_AT,
      expiresAt: issued.validFrom + issued.lifeMs,
    }
    return slot.token
  }
}

function slotOf(state: HostState, target: AuthTarget): TokenSlot {
  const key = target.scopes.join(' ')
  let slot = state.slots.get(key)
  if (slot === undefined) {
    // Bounded: a client that walks through thousands of repositories asks again for the oldest.
    const [oldest] = state.slots.keys()
    if (state.slots.size >= MAX_SLOTS && oldest !== undefined) state.slots.delete(oldest)
    slot = { token: undefined, flight: undefined, asked: undefined, notBefore: 0 }
    state.slots.set(key, slot)
  }
  return slot
}

/** Bearer before Basic, as Docker; but Basic where Bearer has no realm. Identity tokens are for Bearer only. */
function preferred(challenges: readonly Challenge[], credentials: Credentials | undefined): Challenge | undefined {
  const bearer = challenges.find(({ scheme, parameters }) => scheme === 'bearer' && parameters['realm'] !== undefined)
  const basic = challenges.find(({ scheme }) => scheme === 'basic')
  return bearer ?? (credentials?.kind === 'basic' || credentials?.kind === 'anonymous' ? basic : undefined)
}

function basicHeader(username: string, password: Secret): Secret {
  return new Secret(`Basic ${Buffer.from(`${username}:${password.reveal()}`).toString('base64')}`)
}

/** The token server. A registry on HTTPS must not talk us into sending a password in the clear. */
function realmOf(challenge: Challenge, target: AuthTarget, credentials: Credentials): URL {
  const realm = URL.parse(challenge.parameters['realm'] ?? '', target.origin)
  if (realm === null || (realm.protocol !== 'https:' && realm.protocol !== 'http:')) {
    throw new RegistryError(
      'BAD_RESPONSE',
      `cannot log in at ${target.host}: its challenge names no usable token server`,
    )
  }
  const inTheClear = realm.protocol === 'http:' && target.origin.startsWith('https:') && !isLoopback(realm.host)
  if (inTheClear && (credentials.kind === 'basic' || credentials.kind === 'identity-token')) {
    throw new RegistryError(
      'UNAUTHORIZED',
      `will not log in at ${target.host}: its token server ${realm.host} would get the password without TLS`,
    )
  }
  return realm
}

/** `repository:a:pull` and `repository:a:pull,push` become `repository:a:pull,push`. */
function unionOfScopes(scopes: readonly string[]): string[] {
  const actions = new Map<string, Set<string>>()
  for (const scope of scopes) {
    const colon = scope.lastIndexOf(':')
    if (colon < 0) continue
    const resource = scope.slice(0, colon)
    const known = actions.get(resource) ?? new Set()
    for (const action of scope.slice(colon + 1).split(',')) known.add(action)
    actions.set(resource, known)
  }
  return [...actions].map(([resource, allowed]) => `${resource}:${[...allowed].join(',')}`).sort()
}
