import { abortable } from './abortable.ts'
import type { Clock } from './retry.ts'
import { deadlineSignal } from '../kernel/index.ts'

/** How one learns whether a proxy is well. */
export interface ProxyHealthOptions {
  /** Asked every `checkIntervalMs`: 2xx and 3xx mean well. Blank: it is taken for well, always. */
  readonly pingUrl: string
  readonly checkIntervalMs: number
  /** Without requests for so long nobody asks any more. */
  readonly checkPauseMs: number
  /** A ping ends after so long. */
  readonly pingTimeoutMs: number
  /** A line for the log. */
  readonly onNotice: (text: string) => void
}

interface HealthParts {
  readonly clock: Clock
  /** The status that the URL answers. */
  readonly ping: (url: URL, signal: AbortSignal) => Promise<number>
}

/** The shortest pause: a configuration of 0 must not make a busy loop. */
const MIN_INTERVAL_MS = 100
/** The longest wait that a timer can: a longer one would be over at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** A proxy is well until a ping says otherwise. Pings go on only while requests come. */
export class ProxyHealth {
  readonly #options: ProxyHealthOptions
  readonly #parts: HealthParts
  readonly #url: URL | undefined
  readonly #closing = new AbortController()
  #isWell = true
  #usedAt = 0
  #timer: NodeJS.Timeout | undefined
  #pinging: Promise<void> | undefined

  constructor(options: ProxyHealthOptions, parts: HealthParts) {
    this.#options = options
    this.#parts = parts
    this.#url = options.pingUrl === '' ? undefined : new URL(options.pingUrl)
  }

  /** For a request that is to be sent now. Where pings had paused and the last one was bad, a fresh one is waited for. */
  async isGood(signal: AbortSignal): Promise<boolean> {
    if (this.#url === undefined) return true
    this.#usedAt = this.#parts.clock.now()
    if (this.#timer === undefined && this.#pinging === undefined) {
      const fresh = this.#ping(this.#url)
      if (!this.#isWell) await abortable(fresh, signal)
    }
    return this.#isWell
  }

  close(): void {
    this.#closing.abort()
    clearTimeout(this.#timer)
  }

  #ping(url: URL): Promise<void> {
    this.#pinging ??= this.#ask(url).finally(() => {
      this.#pinging = undefined
      this.#again(url)
    })
    return this.#pinging
  }

  #again(url: URL): void {
    this.#timer = undefined
    const { checkIntervalMs, checkPauseMs } = this.#options
    const idleMs = this.#parts.clock.now() - this.#usedAt
    if (this.#closing.signal.aborted || idleMs > checkPauseMs) return
    const pauseMs = Math.min(MAX_TIMER_MS, Math.max(MIN_INTERVAL_MS, checkIntervalMs))
    this.#timer = setTimeout(() => void this.#next(url), pauseMs).unref()
  }

  /** Idle for long: the next request starts the pings again. */
  async #next(url: URL): Promise<void> {
    this.#timer = undefined
    if (this.#parts.clock.now() - this.#usedAt <= this.#options.checkPauseMs) await this.#ping(url)
  }

  async #ask(url: URL): Promise<void> {
    const { pingTimeoutMs, onNotice } = this.#options
    const signal = AbortSignal.any([this.#closing.signal, deadlineSignal(Math.min(MAX_TIMER_MS, pingTimeoutMs))])
    let found: string
    try {
      const status = await this.#parts.ping(url, signal)
      found = status >= 200 && status < 400 ? '' : `response status ${status}`
    } catch (error) {
      found = (error as Error).message
    }
    if (this.#closing.signal.aborted) return
    if (this.#isWell && found !== '') onNotice(`Detected proxy unhealthy when pinging proxy, ${found}`)
    if (!this.#isWell && found === '') onNotice('Backend proxy recovered')
    this.#isWell = found === ''
  }
}
