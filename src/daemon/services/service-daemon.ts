import { EventLog } from '../events.ts'
import type { Log } from '../log.ts'
import { type DaemonState, nextState } from '../state.ts'

export interface ServiceDaemonOptions {
  readonly id: string | undefined
  readonly supervisor: string | undefined
  readonly log: Log
}

/** A daemon that serves no file system, as its API sees it. */
export class ServiceDaemon {
  readonly options: ServiceDaemonOptions
  readonly events = new EventLog()
  readonly #close: () => Promise<void>
  #state: DaemonState = 'RUNNING'

  /** Of a service that answers; `close` ends it. */
  constructor(options: ServiceDaemonOptions, close: () => Promise<void>) {
    this.options = options
    this.#close = close
  }

  get state(): DaemonState {
    return this.#state
  }

  /** Throws DaemonError 'BAD_STATE', always: it serves from its start. */
  serve(): void {
    nextState(this.#state, 'Start')
  }

  async stop(): Promise<void> {
    if (this.#state === 'STOPPED') return
    this.#state = 'STOPPED'
    await this.#close()
  }
}
