import { closeSync } from 'node:fs'
import type { DaemonApi } from './api-client.ts'
import { Holder } from './holder.ts'
import { messageOf } from './message.ts'
import type { DaemonLog } from './settings.ts'
import { fetchSession, offerSession, type Session } from './supervisor.ts'
import { Turns } from './turns.ts'

const SAVE_AGAIN_MS = 5_000

/** What keeps a session: the socket to which its daemon sends it, and whom to ask whether it can. */
export interface SessionSource {
  /** '' when the daemon has no supervisor. */
  readonly supervisorPath: string
  readonly api: DaemonApi
  readonly isRunning: boolean
}

/** What a daemon's successor needs, as it was when something was mounted last: here, and where it outlives this process. */
export class SessionKeeper {
  readonly #name: string
  readonly #log: DaemonLog
  readonly #holder: Holder
  readonly #source: () => SessionSource
  readonly #turns = new Turns()
  #session: Session | undefined
  #isWanted = false

  constructor(parts: {
    readonly name: string
    readonly path: string
    readonly log: DaemonLog
    readonly source: () => SessionSource
  }) {
    this.#name = parts.name
    this.#log = parts.log
    this.#holder = new Holder(parts.path, parts.log)
    this.#source = parts.source
  }

  /** What there is without asking anybody. */
  get session(): Session | undefined {
    return this.#session
  }

  /** Calls that come while one is under way are served by one more. What fails is logged, and tried again: until then the state before serves for what was mounted then. */
  async save(): Promise<void> {
    if (this.#source().supervisorPath === '') return
    this.#isWanted = true
    await this.#turns.take(async () => {
      const { supervisorPath, api, isRunning } = this.#source()
      if (!this.#isWanted || !isRunning) return
      this.#isWanted = false
      try {
        const session = await fetchSession(supervisorPath, () => api.sendState())
        this.release()
        this.#session = session
        await this.#holder.keep(session)
      } catch (error) {
        this.#log.warn(`nydusd ${this.#name}: a successor would have an old state: ${messageOf(error)}`)
        if (this.#source().isRunning) setTimeout(() => void this.save(), SAVE_AGAIN_MS).unref()
      }
    })
  }

  /** What this process has, or an earlier one kept. */
  async find(): Promise<Session | undefined> {
    if (this.#source().supervisorPath === '') return undefined
    try {
      this.#session ??= await this.#holder.find()
    } catch (error) {
      this.#log.warn(`the session of nydusd ${this.#name} cannot be taken up: ${messageOf(error)}`)
    }
    return this.#session
  }

  /** Gives a session to a daemon that waits for it. */
  async offer(session: Session, api: DaemonApi): Promise<void> {
    await offerSession(this.#source().supervisorPath, session, () => api.takeOver())
  }

  /** It is over: nobody can go on with it. */
  end(): void {
    this.#holder.end()
    this.release()
  }

  /** Only this process forgets it. */
  release(): void {
    if (this.#session !== undefined) closeSync(this.#session.device)
    this.#session = undefined
  }
}
