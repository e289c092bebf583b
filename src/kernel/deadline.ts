/** A timer takes no more. */
const MOST_MS = 2 ** 31 - 1

/**
 * A signal that aborts after `ms` milliseconds with a `TimeoutError`, unless it is disposed of before, or with one of `others`. It keeps no process alive.
 *
 * In the place of `AbortSignal.timeout`: what Node 24 makes of that by `AbortSignal.any`, it keeps for ever once somebody listened to it and stopped, and the deadline is long; two of
 * 400 bytes for each request.
 */
export class Deadline implements Disposable {
  readonly signal: AbortSignal
  readonly #timer: NodeJS.Timeout

  constructor(ms: number, ...others: readonly AbortSignal[]) {
    const controller = new AbortController()
    this.signal = others.length === 0 ? controller.signal : AbortSignal.any([controller.signal, ...others])
    const late = (): void =>
      controller.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError'))
    this.#timer = setTimeout(late, Math.max(0, Math.min(MOST_MS, Math.ceil(ms)))).unref()
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
  }
}

/** As {@link Deadline}, for what happens now and then: it takes its memory until the time is over. */
export function deadlineSignal(ms: number): AbortSignal {
  return new Deadline(ms).signal
}
