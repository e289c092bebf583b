import { SnapshotterError } from '../errors.ts'
import { type Credential, credentialOf, fieldsOf, sameCredential } from './credential.ts'
import { imageNameOf } from './image-name.ts'
import { KeptFile } from './kept-file.ts'
import type { CredentialLog } from './provider.ts'
import type { ProviderChain } from './provider-chain.ts'
import { deadlineSignal } from '../../kernel/index.ts'

/** What the images in use are read with, and who is told of newer ones. */
export interface ImagesInUse {
  /** References of images whose files are served now, as `find` got them. */
  references(): Iterable<string>
  /** The credential of that reference is another one now: daemons and their configurations get it. When this rejects it is told again in the next round. */
  renewed(reference: string, credential: Credential, signal: AbortSignal): Promise<void>
}

export interface RenewalParts {
  /** The file that outlives restarts. */
  readonly path: string
  /** Between renewals; also how long a credential must last when it is fetched. */
  readonly intervalMs: number
  /** Of the providers that can be asked again. */
  readonly providers: ProviderChain
  readonly log: CredentialLog
}

/** How often renewing an image's credentials succeeded and failed. */
export interface RenewalCount {
  success: number
  failure: number
}

interface Entry {
  readonly credential: Credential
  /** Milliseconds since 1970. */
  readonly renewedAtMs: number
  /** 0 when nobody knows. */
  readonly expiresAtMs: number
}

/** One that nearly expires is not renewed more often than this. */
const SHORTEST_PAUSE_MS = 10_000
/** Part of a credential's life after which it is renewed. */
const RENEW_AT = 0.75
const DEADLINE_MS = 90_000
const MAX_ENTRIES = 10_000

/**
 * Credentials of images in use, fetched anew at an interval, and earlier where one expires earlier. Kept in a file, so that a restart has them; what no image
 * uses is forgotten after half an interval (a pull asks long before the image is mounted).
 */
export class RenewedCredentials {
  readonly #parts: RenewalParts
  /** The one renewed longest ago first. */
  readonly #entries = new Map<string, Entry>()
  readonly #counts = new Map<string, RenewalCount>()
  /** Images whose users have not taken their newest credential. */
  readonly #untold = new Set<string>()
  readonly #file: KeptFile
  /** When the last round for all images began. */
  #allAtMs = 0
  #timer: NodeJS.Timeout | undefined
  readonly #closing = new AbortController()
  #round: Promise<void> | undefined

  private constructor(parts: RenewalParts) {
    this.#parts = parts
    this.#file = new KeptFile(parts.path, parts.log, () => formatEntries(this.#entries))
  }

  /** A file that cannot be used is left where it is until the next write, and logged: credentials are fetched anew. */
  static async open(parts: RenewalParts): Promise<RenewedCredentials> {
    const renewed = new RenewedCredentials(parts)
    for (const entry of await renewed.#file.entries(MAX_ENTRIES)) renewed.#load(entry)
    return renewed
  }

  get(image: string): Credential | undefined {
    const entry = this.#entries.get(image)
    return entry === undefined || hasExpired(entry) ? undefined : entry.credential
  }

  keep(image: string, credential: Credential, expiresAtMs = 0): void {
    this.#entries.delete(image)
    this.#entries.set(image, { credential, renewedAtMs: Date.now(), expiresAtMs })
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > MAX_ENTRIES && oldest !== undefined) this.#entries.delete(oldest)
    this.#file.changed()
  }

  /** By image, for metrics. */
  get counts(): ReadonlyMap<string, Readonly<RenewalCount>> {
    return this.#counts
  }

  /** Images with an entry, for metrics. */
  get images(): Iterable<string> {
    return this.#entries.keys()
  }

  /** Renews now, and then until `close`. */
  start(inUse: ImagesInUse): void {
    const next = (): void => {
      const sinceAllMs = Date.now() - this.#allAtMs
      // A negative time: somebody set the clock back.
      const isForAll = sinceAllMs >= this.#parts.intervalMs || sinceAllMs < 0
      this.#round = this.renew(inUse, isForAll ? 'all' : 'due')
        .catch((error: unknown) => this.#parts.log.warn(`credentials were not renewed: ${(error as Error).message}`))
        .finally(() => {
          if (!this.#closing.signal.aborted) this.#timer = setTimeout(next, this.#pauseMs())
        })
    }
    next()
  }

  /**
   * One round, for all images in use, or for those only whose credential expires soon or whose users have not taken it. They are taken one after the other: a provider
   * may be a process.
   */
  async renew(inUse: ImagesInUse, which: 'all' | 'due' = 'all'): Promise<void> {
    if (which === 'all') this.#allAtMs = Date.now()
    const live = new Map<string, string[]>()
    for (const reference of inUse.references()) {
      const image = imageNameOf(reference)
      if (image !== undefined) live.set(image, [...(live.get(image) ?? []), reference])
    }
    for (const [image, references] of live) {
      if (this.#closing.signal.aborted) return
      if (which === 'due' && !this.#isDue(image)) continue
      await this.#renewOne(image, references, inUse)
    }
    const grace = this.#parts.intervalMs / 2
    for (const [image, { renewedAtMs }] of this.#entries) {
      const age = Date.now() - renewedAtMs
      // A negative age: somebody set the clock back.
      if (!live.has(image) && (age >= grace || age < 0)) this.#forget(image)
    }
    for (const image of this.#counts.keys()) if (!live.has(image)) this.#counts.delete(image)
  }

  async close(): Promise<void> {
    this.#closing.abort(new SnapshotterError('CANCELLED', 'the snapshotter stops'))
    clearTimeout(this.#timer)
    await this.#round
    await this.#file.flush()
  }

  async #renewOne(image: string, references: readonly string[], inUse: ImagesInUse): Promise<void> {
    const signal = AbortSignal.any([this.#closing.signal, deadlineSignal(DEADLINE_MS)])
    const before = this.#entries.get(image)
    const count = this.#counts.get(image) ?? { success: 0, failure: 0 }
    try {
      const found = await this.#parts.providers.find(image, new Map(), Date.now() + this.#parts.intervalMs, signal)
      // An image that never had any, from a public registry: nothing to renew.
      if (found === undefined && before === undefined) return
      this.#counts.set(image, count)
      if (found === undefined) throw new SnapshotterError('UNAVAILABLE', 'no provider has any')
      this.keep(image, found.credential, found.expiresAtMs)
      if (before === undefined || !sameCredential(before.credential, found.credential)) this.#untold.add(image)
      if (this.#untold.has(image))
        for (const reference of references) await inUse.renewed(reference, found.credential, signal)
      this.#untold.delete(image)
      count.success += 1
    } catch (error) {
      if (this.#closing.signal.aborted) return
      count.failure += 1
      this.#counts.set(image, count)
      this.#parts.log.warn(`credentials for ${image} were not renewed: ${(error as Error).message}`)
    }
  }

  /** Until the next round: the interval, or less when a credential expires before it. */
  #pauseMs(): number {
    const now = Date.now()
    let at = this.#allAtMs + this.#parts.intervalMs
    for (const entry of this.#entries.values()) at = Math.min(at, dueAtMs(entry))
    const pause = Math.max(at - now, Math.min(SHORTEST_PAUSE_MS, this.#parts.intervalMs))
    return Math.min(pause, this.#parts.intervalMs, 2 ** 31 - 1)
  }

  #isDue(image: string): boolean {
    const entry = this.#entries.get(image)
    return this.#untold.has(image) || (entry !== undefined && dueAtMs(entry) <= Date.now())
  }

  #forget(image: string): void {
    this.#entries.delete(image)
    this.#counts.delete(image)
    this.#untold.delete(image)
    this.#file.changed()
  }

  #load({ image, username, password, renewed_at_ms, expires_at_ms }: Readonly<Record<string, unknown>>): void {
    if (typeof image !== 'string' || typeof username !== 'string' || typeof password !== 'string') return
    const credential = credentialOf(username, password)
    if (credential === undefined) return
    this.#entries.set(image, {
      credential,
      renewedAtMs: Number(renewed_at_ms) || 0,
      expiresAtMs: Number(expires_at_ms) || 0,
    })
  }
}

/** When its time is nearly over; never for one whose end nobody knows. */
function dueAtMs({ expiresAtMs, renewedAtMs }: Entry): number {
  return expiresAtMs === 0 ? Number.POSITIVE_INFINITY : renewedAtMs + (expiresAtMs - renewedAtMs) * RENEW_AT
}

function hasExpired({ expiresAtMs }: Entry): boolean {
  return expiresAtMs > 0 && expiresAtMs <= Date.now()
}

/** The file: `{"version":1,"images":[{"image","username","password","renewed_at_ms","expires_at_ms"}]}`; a token has an empty user name. */
function formatEntries(entries: ReadonlyMap<string, Entry>): string {
  const images = [...entries].map(([image, { credential, renewedAtMs, expiresAtMs }]) => ({
    image,
    ...fieldsOf(credential),
    renewed_at_ms: renewedAtMs,
    expires_at_ms: expiresAtMs,
  }))
  return `${JSON.stringify({ version: 1, images })}\n`
}
