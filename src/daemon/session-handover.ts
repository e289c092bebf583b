import { closeSync } from 'node:fs'
import { DaemonError, messageOf } from './errors.ts'
import { drainRequests, type FailoverPolicy } from './handover/drain.ts'
import { connectionOf, optionsOf } from './handover/session-facts.ts'
import { decodeState, encodeState, type MountRecord, type SessionState } from './handover/session-state.ts'
import { type HandedOver, receiveFromSupervisor, sendToSupervisor } from './handover/supervisor.ts'
import { fromRecord, type ImageRequests } from './image-requests.ts'
import type { ImageRequest } from './image.ts'
import type { Log } from './log.ts'
import type { MountTable } from './mounts.ts'
import type { Session } from './transports/session.ts'

export interface SessionHandoverParts {
  /** The mount point of the session. */
  readonly at: string
  readonly supervisor: string | undefined
  /** What becomes of requests that the last daemon had in hand. */
  readonly failover: FailoverPolicy
  /** The kernel was asked to let opens through. */
  readonly exchangesOpens: boolean
  readonly log: Log
  readonly session: Session
  readonly mounts: MountTable
  readonly requests: ImageRequests
  /** Settings that the API changes; they go over too. */
  readonly dynamic: Map<string, string>
}

/** Told of an image that cannot be opened; when it throws, nothing is taken over. */
export type OnFailedImage = (path: string, error: unknown) => void

/**
 * Gives a session to the daemon after this one, and takes one over from the daemon before it, by a supervisor or where both can see it. Who gives goes on serving until it is told to leave;
 * who takes serves nothing until it is told to. Nothing here waits for another daemon: only the supervisor is spoken to.
 */
export class SessionHandover {
  readonly #parts: SessionHandoverParts
  /** What the kernel agreed on with the session's first daemon; undefined in the first one. */
  #inherited: Pick<SessionState, 'connection' | 'options'> | undefined

  constructor(parts: SessionHandoverParts) {
    this.#parts = parts
  }

  /** What another daemon needs to go on with this session. Throws DaemonError 'NOT_READY'. */
  async stateNow(): Promise<Buffer> {
    const { session, mounts, at, exchangesOpens, dynamic } = this.#parts
    const { facts } = session
    const { connection, options } = this.#inherited ?? {
      connection: await connectionOf(at),
      options: facts === undefined ? undefined : optionsOf(facts, exchangesOpens),
    }
    if (options === undefined) throw new DaemonError('NOT_READY', 'the kernel has not begun the session yet')
    return encodeState({ connection, options, settings: dynamic, ...mounts.tree })
  }

  /** Gives state and device to the supervisor. Throws DaemonError 'NOT_READY', 'HANDOVER'. */
  async send(): Promise<void> {
    const { session, supervisor, log } = this.#parts
    const { device } = session
    if (device === undefined) throw new DaemonError('NOT_READY', 'there is no session yet that could be given away')
    await sendToSupervisor(supervisor, await this.stateNow(), device)
    log.info('session and state are with the supervisor')
  }

  /** Takes the session that the supervisor keeps: {@link restore}. One image that cannot be opened is enough for it to fail. Throws DaemonError 'HANDOVER'. */
  async receive(onTaken: () => void): Promise<void> {
    const handed = await receiveFromSupervisor(this.#parts.supervisor)
    const refuse: OnFailedImage = (path, error) => {
      throw new DaemonError('HANDOVER', `cannot take over ${path}: ${messageOf(error)}`, { cause: error })
    }
    await this.restore(handed, refuse, onTaken)
  }

  /**
   * Takes a session that is here; its device is ours from now on, and closed when this throws. `onTaken` is called when everything is mounted, before the session gets the device, and may
   * throw. Throws DaemonError 'HANDOVER'.
   */
  async restore({ state, device }: HandedOver, onFailure: OnFailedImage, onTaken: () => void): Promise<void> {
    const { session, mounts, dynamic, at, log } = this.#parts
    try {
      const taken = decodeState(state)
      this.#checkOwnOverlays()
      for (const [key, value] of taken.settings) dynamic.set(key, value)
      await mounts.restore(taken, { requestOf: (record) => this.#requestOf(record), onFailure })
      onTaken()
      session.adopt(device, taken.connection)
      this.#inherited = taken
    } catch (error) {
      closeSync(device)
      throw error
    }
    log.info(`took over the session of another daemon at ${at}: ${mounts.all.length} mounts`)
  }

  /** Has the kernel hand out again, or answer, what the last daemon had in hand; nobody may read the device meanwhile. */
  async drain(device: number): Promise<void> {
    const { failover, log } = this.#parts
    await drainRequests(device, this.#inherited?.connection ?? 0n, failover, log)
  }

  #requestOf(record: MountRecord): ImageRequest {
    const request = this.#parts.requests.of(record.path, fromRecord(record))
    if ((request.config.overlay !== null) !== (record.kind === 'overlay'))
      throw new DaemonError(
        'HANDOVER',
        "a session with an overlay is taken over from this project's daemons only: the state does not say what is in hand of it",
      )
    return request
  }

  /** They would get other slots, which their users would not know. */
  #checkOwnOverlays(): void {
    if (this.#parts.mounts.all.some(({ image }) => image.settings.overlay !== undefined))
      throw new DaemonError(
        'HANDOVER',
        'a daemon that has mounted an overlay cannot take over a session; start another',
      )
  }
}
