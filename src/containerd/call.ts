import type { EventEmitter } from 'node:events'
import type { Metadata } from '@grpc/grpc-js'

/** What comes with a call beside its message. */
export interface ServedCall {
  /** Aborted when the caller gives up, its deadline passes, or the server stops. Whatever the call began must end then. */
  readonly signal: AbortSignal
  /** containerd's namespace of the caller; '' when it names none. */
  readonly namespace: string
  /** As the caller sent it; keys are in lower case. */
  readonly metadata: Metadata
}

/** What every call of grpc-js has on the server's side, whatever its kind. */
export type AnyServerCall = EventEmitter & { readonly cancelled: boolean; readonly metadata: Metadata }

/** Calls under way: `abort` aborts them, `idle` waits for the last one's end. */
export class CallsUnderWay {
  readonly #calls = new Map<AnyServerCall, () => void>()
  #idle: (() => void) | undefined
  #aborted = false

  begin(call: AnyServerCall): ServedCall {
    const abort = new AbortController()
    const cancel = (): void => abort.abort()
    this.#calls.set(call, cancel)
    call.once('cancelled', cancel)
    if (call.cancelled || this.#aborted) cancel()
    const namespace = call.metadata.get('containerd-namespace')[0]
    return {
      signal: abort.signal,
      namespace: typeof namespace === 'string' ? namespace : '',
      metadata: call.metadata,
    }
  }

  end(call: AnyServerCall): void {
    // grpc-js also says so of a call that was answered, when its stream closes.
    const cancel = this.#calls.get(call)
    if (cancel !== undefined) call.off('cancelled', cancel)
    this.#calls.delete(call)
    if (this.#calls.size === 0) this.#idle?.()
  }

  /** Those that come later too. */
  abort(): void {
    this.#aborted = true
    for (const cancel of this.#calls.values()) cancel()
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
