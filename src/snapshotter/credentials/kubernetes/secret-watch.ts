import { setTimeout as delay } from 'node:timers/promises'
import type { Credential } from '../credential.ts'
import type { CredentialLog } from '../provider.ts'
import { loginsOf, SECRET_TYPE, type SecretObject } from './docker-secret.ts'
import { type KubeApi, KubeApiError } from './kube-api.ts'
import { deadlineSignal } from '../../../kernel/index.ts'

export interface SecretWatchOptions {
  readonly api: KubeApi
  readonly log: CredentialLog
  /** After a first failure; doubles up to `mostDelayMs`. */
  readonly firstDelayMs: number
  readonly mostDelayMs: number
}

interface Event {
  readonly type?: unknown
  readonly object?: SecretObject & { readonly code?: unknown; readonly message?: unknown }
}

interface Page {
  readonly items?: unknown
  readonly metadata?: { readonly resourceVersion?: unknown; readonly continue?: unknown }
}

const SECRETS = '/api/v1/secrets'
const SELECTOR = `fieldSelector=${encodeURIComponent(`type=${SECRET_TYPE}`)}`
const PAGE = 50
const MOST_SECRETS = 100_000
/** The server ends a watch after this, and we begin the next; different for each node, so that they do not come together. */
const WATCH_SECONDS = 300
const WATCH_MARGIN_MS = 30_000
const GONE = 410

/**
 * Image pull secrets of the whole cluster, in memory: listed in pages, then watched. A watch that ends goes on where it was (bookmarks move that on); where the server no longer knows that place (410), all is listed again, and until then what is
 * known stays. Between failures it waits, longer each time.
 */
export class SecretWatch {
  readonly #options: SecretWatchOptions
  readonly #closing = new AbortController()
  readonly #synced = Promise.withResolvers<void>()
  #running: Promise<void> | undefined
  #secrets = new Map<string, ReadonlyMap<string, Credential>>()
  /** Where the next watch begins; undefined: list first. */
  #version: string | undefined
  #failure: Error | undefined
  #isSynced = false
  #isFullTold = false

  constructor(options: SecretWatchOptions) {
    this.#options = options
    this.#synced.promise.catch(() => {}) // who waits for it is told
  }

  /** By `namespace/name`: logins by pattern. */
  get secrets(): ReadonlyMap<string, ReadonlyMap<string, Credential>> {
    return this.#secrets
  }

  /** Why it is not known what the secrets are; undefined once they were listed. */
  get failure(): Error | undefined {
    return this.#isSynced ? undefined : this.#failure
  }

  /** Resolves when they were listed for the first time; rejects when listing failed, or at `close`. */
  get synced(): Promise<void> {
    return this.#synced.promise
  }

  start(): void {
    this.#running ??= this.#run()
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#running
    this.#synced.reject(new KubeApiError(0, 'the snapshotter stops'))
  }

  async #run(): Promise<void> {
    const { firstDelayMs, mostDelayMs, log } = this.#options
    let waitMs = firstDelayMs
    while (!this.#closing.signal.aborted) {
      try {
        if (this.#version === undefined) {
          await this.#list()
          waitMs = firstDelayMs
        }
        if (await this.#watch()) waitMs = firstDelayMs
      } catch (error) {
        if (this.#closing.signal.aborted) return
        if (this.#failed(error as Error)) {
          // A place that is gone is no failure of the server: it is asked at once, but not again and again.
          waitMs = firstDelayMs
        } else
          log.warn(`image pull secrets: ${(error as Error).message}; next try within ${Math.ceil(waitMs / 1000)} s`)
      }
      // At most as long, at least half of it: a cluster's nodes must not come together.
      const pause = waitMs / 2 + (Math.random() * waitMs) / 2
      await delay(pause, undefined, { signal: this.#closing.signal }).catch(() => {}) // closing ends the loop
      waitMs = Math.min(waitMs * 2, mostDelayMs)
    }
  }

  /** True when only the place to go on from is gone. */
  #failed(error: Error): boolean {
    const isGone = error instanceof KubeApiError && error.status === GONE
    // Only a broken connection leaves the place as it is.
    if (isGone || !(error instanceof KubeApiError) || error.status !== 0) this.#version = undefined
    if (!isGone) {
      this.#failure = error
      this.#synced.reject(error)
    }
    return isGone
  }

  async #list(): Promise<void> {
    const found = new Map<string, ReadonlyMap<string, Credential>>()
    let next = ''
    let version = ''
    do {
      const path = `${SECRETS}?${SELECTOR}&limit=${PAGE}${next === '' ? '' : `&continue=${encodeURIComponent(next)}`}`
      const page = (await this.#options.api.get(path, this.#closing.signal)) as Page | null
      const items: unknown = page?.items ?? []
      if (page === null || typeof page !== 'object' || !Array.isArray(items))
        throw new KubeApiError(0, 'the list of secrets is none')
      for (const item of items as SecretObject[]) this.#take(found, item)
      version = textOf(page.metadata?.resourceVersion)
      const token = textOf(page.metadata?.continue)
      if (token !== '' && token === next) throw new KubeApiError(0, 'the list of secrets goes round in a circle')
      next = token
    } while (next !== '')
    this.#secrets = found
    this.#version = version
    this.#isSynced = true
    this.#synced.resolve()
    this.#options.log.debug(`image pull secrets: ${found.size} known`)
  }

  /** One watch, to its end. True when it brought something: then the server is well. */
  async #watch(): Promise<boolean> {
    const seconds = WATCH_SECONDS + Math.floor(Math.random() * WATCH_SECONDS)
    const version = encodeURIComponent(this.#version ?? '')
    const path = `${SECRETS}?${SELECTOR}&watch=true&allowWatchBookmarks=true&resourceVersion=${version}&timeoutSeconds=${seconds}`
    const signal = AbortSignal.any([this.#closing.signal, deadlineSignal(seconds * 1000 + WATCH_MARGIN_MS)])
    let isAlive = false
    for await (const event of this.#options.api.lines(path, signal)) {
      this.#apply(event as Event)
      isAlive = true
    }
    return isAlive
  }

  #apply({ type, object }: Event): void {
    if (type === 'ERROR') {
      const status = Number(object?.code) || 500
      throw new KubeApiError(status, `the watch ended: ${status} ${textOf(object?.message).slice(0, 300)}`)
    }
    if (object === undefined || object === null) return
    if (type === 'DELETED') this.#secrets.delete(nameOf(object))
    else if (type === 'ADDED' || type === 'MODIFIED') this.#take(this.#secrets, object)
    const version = textOf(object.metadata?.resourceVersion)
    if (version !== '') this.#version = version
  }

  #take(into: Map<string, ReadonlyMap<string, Credential>>, secret: SecretObject): void {
    const name = nameOf(secret)
    const logins = loginsOf(secret)
    const isFull = into.size >= MOST_SECRETS && !into.has(name)
    if (logins !== undefined && !isFull) {
      into.set(name, logins)
      return
    }
    into.delete(name)
    if (isFull && this.#isFullTold) return
    this.#isFullTold ||= isFull
    const why = isFull ? `${MOST_SECRETS} are known; more are not` : 'it holds no Docker configuration'
    this.#options.log.warn(`image pull secret ${name.slice(0, 300)} is not used: ${why}`)
  }
}

function nameOf({ metadata }: SecretObject): string {
  return `${textOf(metadata?.namespace)}/${textOf(metadata?.name)}`
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
