/** What comes with a call beside its message. */
export interface ServedCall {
  /** Aborted when the caller gives up, its deadline passes, or the server stops. Whatever the call began must end then. */
  readonly signal: AbortSignal
  /** containerd's namespace of the caller; '' when it names none. */
  readonly namespace: string
}

/** Calls under way: `abort` aborts them, `idle` waits for the last one's end. */
export class CallsUnderWay {
  readonly #calls = new Set<AbortController>()
  #idle: (() => void) | undefined
  #aborted = false

  /** What aborts the new call, which lasts until `end`. */
  begin(): AbortController {
    const call = new AbortController()
    this.#calls.add(call)
    if (this.#aborted) call.abort()
    return call
  }

  end(call: AbortController): void {
    this.#calls.delete(call)
    if (this.#calls.size === 0) this.#idle?.()
  }

  /** Those that come later too. */
  abort(): void {
    this.#aborted = true
    for (const call of this.#calls) call.abort()
  }

  /** Resolves when nothing is under way, at the latest after `timeoutMs`. */
  async idle(timeoutMs: number): Promise<void> {
    if (this.#calls.size === 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs)
      this.#idle = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.#idle = undefined
  }
}
