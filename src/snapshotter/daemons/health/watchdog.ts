/** Looks after daemons that live and do nothing. Source: docs/containerd-nydus-grpc.md, "When a nydusd hangs". */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Nydusd } from '../daemon.ts'
import { DaemonWatch, type WatchParts } from './daemon-watch.ts'

/** A daemon has so many chances, at least, within the time after which it is said to hang. */
const QUESTIONS = 6
/** Less than what a call to its API may take (`DaemonApi`), which would end the question before its time. */
const MOST_QUESTION_MS = 20_000
/** So many daemons are asked in a second at most: each costs a process and a call. */
const LEAST_PAUSE_MS = 100

export interface WatchdogParts extends Omit<WatchParts, 'deadlineMs'> {
  /** Those that there are now. */
  readonly daemons: () => readonly Nydusd[]
}

/** The time for one question, whole milliseconds: deadlines take no others. */
export function questionMs(hangTimeoutMs: number): number {
  return Math.min(Math.ceil(hangTimeoutMs / QUESTIONS), MOST_QUESTION_MS)
}

/** Asks each daemon in turn whether it still answers; those that do not are asked again at once, beside the others. */
export class Watchdog {
  readonly #parts: WatchdogParts
  readonly #stopped = new AbortController()
  readonly #watches = new Map<Nydusd, DaemonWatch>()

  private constructor(parts: WatchdogParts) {
    this.#parts = parts
  }

  /** Undefined when it is switched off. */
  static start(parts: WatchdogParts): Watchdog | undefined {
    if (parts.hangTimeoutMs <= 0) return undefined
    const watchdog = new Watchdog(parts)
    void watchdog.#run()
    return watchdog
  }

  stop(): void {
    this.#stopped.abort()
    for (const watch of this.#watches.values()) watch.close()
    this.#watches.clear()
  }

  async #run(): Promise<void> {
    const { daemons, hangTimeoutMs } = this.#parts
    const intervalMs = questionMs(hangTimeoutMs)
    while (!this.#stopped.signal.aborted) {
      const now = daemons()
      this.#forget(new Set(now))
      const pauseMs = Math.max(LEAST_PAUSE_MS, intervalMs / Math.max(1, now.length))
      for (const daemon of now) {
        void this.#watchOf(daemon, intervalMs).look()
        if (!(await this.#pause(pauseMs))) return
      }
      if (now.length === 0 && !(await this.#pause(intervalMs))) return
    }
  }

  #watchOf(daemon: Nydusd, deadlineMs: number): DaemonWatch {
    const watch = this.#watches.get(daemon) ?? new DaemonWatch(daemon, { ...this.#parts, deadlineMs })
    this.#watches.set(daemon, watch)
    return watch
  }

  #forget(living: ReadonlySet<Nydusd>): void {
    for (const [daemon, watch] of this.#watches)
      if (!living.has(daemon)) {
        watch.close()
        this.#watches.delete(daemon)
      }
  }

  /** False when it is over. */
  async #pause(ms: number): Promise<boolean> {
    return await sleep(ms, true, { signal: this.#stopped.signal, ref: false }).catch(() => false)
  }
}
