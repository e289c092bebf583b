import { SnapshotterError } from './errors.ts'

interface Flight<T> {
  readonly result: Promise<T>
  readonly abort: AbortController
  waiting: number
}

/** Work that many may want at the same time and that is done once for all of them. It is told to stop when nobody waits for it any more. */
export class JoinedWork<T> {
  readonly #flights = new Map<string, Flight<T>>()

  /**
   * What `work` gives for `key`, begun now or by an earlier caller. Rejects with SnapshotterError 'CANCELLED' or 'DEADLINE_EXCEEDED' as soon as `signal`
   * says so; others go on waiting.
   */
  do(key: string, work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    if (signal.aborted) return Promise.reject(gone(signal))
    const flight = this.#flights.get(key) ?? this.#begin(key, work)
    flight.waiting += 1
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        flight.waiting -= 1
        if (flight.waiting === 0) this.#drop(key, flight)
        reject(gone(signal))
      }
      signal.addEventListener('abort', onAbort, { once: true })
      flight.result.finally(() => signal.removeEventListener('abort', onAbort)).then(resolve, reject)
    })
  }

  #begin(key: string, work: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const abort = new AbortController()
    const flight: Flight<T> = { result: work(abort.signal), abort, waiting: 0 }
    this.#flights.set(key, flight)
    const end = (): void => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key)
    }
    flight.result.then(end, end)
    return flight
  }

  /** Who comes now begins anew: this one is ending. */
  #drop(key: string, flight: Flight<T>): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key)
    flight.abort.abort(new SnapshotterError('CANCELLED', 'nobody waits for it any more'))
  }
}

function gone(signal: AbortSignal): SnapshotterError {
  const isLate = signal.reason instanceof DOMException && signal.reason.name === 'TimeoutError'
  return isLate
    ? new SnapshotterError('DEADLINE_EXCEEDED', 'it took longer than the caller waits', { cause: signal.reason })
    : new SnapshotterError('CANCELLED', 'the caller no longer waits', { cause: signal.reason })
}
