import process from 'node:process'
import { formatBytes, formatDuration } from './amounts.ts'

/** How progress is shown: `auto` is a bar on a terminal and lines elsewhere. */
export type ProgressMode = 'auto' | 'plain' | 'json' | 'none'
export const PROGRESS_MODES: readonly ProgressMode[] = ['auto', 'plain', 'json', 'none']

/** Work that takes less than this shows no progress. */
const QUIET_MS = 2000
/** Lines (plain, json) come this often, a bar is redrawn that often. */
const LINE_EVERY_MS = 2000
const BAR_EVERY_MS = 200

/** One piece of work that a person may wait for. */
export interface Progress {
  /** Adds to what is done. Shows it when it is time, so that work which never pauses is seen too. */
  advance(amount: number): void
  /** The total became known, or changed; 0 = unknown. */
  setTotal(total: number): void
  /** The work is over; the bar goes away. May be called twice. */
  done(): void
}

export interface ProgressOptions {
  /** 0 = unknown. */
  readonly total: number
  readonly unit: 'bytes' | 'items'
}

interface Bar {
  update(value: number): void
  setTotal(total: number): void
  start(total: number, value: number): void
  stop(): void
}

/** Bars that are on the terminal. */
const DRAWN = new Set<DelayedProgress>()

/** Before a line goes to the terminal: bars would be mixed with it, and wipe it away when they end. */
export function hideBars(): void {
  for (const bar of DRAWN) bar.hide()
}

/** Shows nothing for two seconds, then a bar, lines or JSON lines on stderr. */
export class DelayedProgress implements Progress {
  readonly #label: string
  readonly #mode: 'bar' | 'plain' | 'json'
  readonly #unit: 'bytes' | 'items'
  readonly #started = Date.now()
  #timer: NodeJS.Timeout | undefined
  /** Not before this time anything is shown, milliseconds. */
  #nextAt = Number.POSITIVE_INFINITY
  #bar: Bar | undefined
  #isDrawn = false
  #value = 0
  #total: number

  constructor(mode: ProgressMode, label: string, options: ProgressOptions) {
    this.#label = label
    this.#unit = options.unit
    this.#total = options.total
    this.#mode = mode !== 'auto' ? (mode === 'json' ? 'json' : 'plain') : process.stderr.isTTY ? 'bar' : 'plain'
    if (mode === 'none') return
    this.#nextAt = this.#started + QUIET_MS
    const every = this.#mode === 'bar' ? BAR_EVERY_MS : LINE_EVERY_MS
    // For times in which nothing advances.
    this.#timer = setInterval(() => this.#look(), every).unref()
    if (this.#mode === 'bar') void this.#loadBar()
  }

  advance(amount: number): void {
    this.#value += amount
    this.#look()
  }

  setTotal(total: number): void {
    this.#total = total
    if (this.#isDrawn) this.#bar?.setTotal(total)
  }

  done(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#nextAt = Number.POSITIVE_INFINITY
    this.hide()
    this.#bar = undefined
  }

  /** Takes the bar off the terminal until it is drawn next. */
  hide(): void {
    if (!this.#isDrawn) return
    this.#bar?.stop()
    this.#isDrawn = false
    DRAWN.delete(this)
  }

  #look(): void {
    const now = Date.now()
    if (now < this.#nextAt) return
    this.#nextAt = now + (this.#mode === 'bar' ? BAR_EVERY_MS : LINE_EVERY_MS)
    if (this.#mode !== 'bar') process.stderr.write(`${this.#mode === 'json' ? this.#json(now) : this.#plain(now)}\n`)
    else if (this.#isDrawn) this.#bar?.update(this.#value)
    else if (this.#bar !== undefined) {
      this.#bar.start(this.#total, this.#value)
      this.#isDrawn = true
      DRAWN.add(this)
    }
  }

  /** Its library is there long before the bar is wanted: who never pauses could not wait for it then. */
  async #loadBar(): Promise<void> {
    const { default: cliProgress } = await import('cli-progress')
    if (this.#timer === undefined) return
    this.#bar = new cliProgress.SingleBar({
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      fps: 1000 / BAR_EVERY_MS,
      format: (_options, state) => {
        const share = state.total > 0 ? Math.min(1, state.value / state.total) : 0
        const drawn = '='.repeat(Math.round(share * 30)).padEnd(30, ' ')
        return state.total > 0
          ? `${this.#label} [${drawn}] ${Math.floor(share * 100)}% ${this.#amount(state.value)} of ${this.#amount(state.total)}`
          : `${this.#label} ${this.#amount(state.value)}`
      },
    })
  }

  #json(now: number): string {
    return JSON.stringify({
      progress: this.#label,
      done: this.#value,
      total: this.#total,
      unit: this.#unit,
      elapsed_s: (now - this.#started) / 1000,
    })
  }

  #plain(now: number): string {
    const total = this.#total > 0 ? ` of ${this.#amount(this.#total)}` : ''
    return `${this.#label}: ${this.#amount(this.#value)}${total} in ${formatDuration(now - this.#started)}`
  }

  #amount(value: number): string {
    return this.#unit === 'bytes' ? formatBytes(value) : String(value)
  }
}
