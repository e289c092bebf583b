import { setTimeout as sleep } from 'node:timers/promises'
import { SnapshotterError } from '../../errors.ts'
import type { Nydusd } from '../daemon.ts'
import type { DaemonEvents } from '../events.ts'
import { processesServing, servesSocket, signalProcess } from '../processes.ts'
import type { DaemonLog, DaemonSettings } from '../settings.ts'
import { MountQuestion } from './mount-question.ts'
import { excuseFor, signsOf } from './process-signs.ts'
import { type Asked, Silence } from './silence.ts'
import { deadlineSignal } from '../../../kernel/index.ts'

export interface WatchParts {
  readonly log: DaemonLog
  readonly events: DaemonEvents
  readonly recoverPolicy: DaemonSettings['daemon']['recoverPolicy']
  /** A daemon that does not answer for so long hangs. */
  readonly hangTimeoutMs: number
  /** Of one question. */
  readonly deadlineMs: number
}

/** Who is asked, and where. */
interface Asking {
  readonly pid: number
  readonly socket: string
}

/** What calls to a socket fail with when nobody takes them; all else is a fault of this process, or an answer. */
const NOBODY = new Set(['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EAGAIN'])

/** One daemon: is it silent, since when, and what is to be done about it. */
export class DaemonWatch {
  readonly #daemon: Nydusd
  readonly #parts: WatchParts
  readonly #mount: MountQuestion
  readonly #closed = new AbortController()
  #isLooking = false
  #isTroubleTold = false
  /** Its requests under way, when its mount was silent last. */
  #inflight = ''

  constructor(daemon: Nydusd, parts: WatchParts) {
    this.#daemon = daemon
    this.#parts = parts
    this.#mount = new MountQuestion(daemon.record.Mountpoint, (why) => this.#cannotAsk(why))
  }

  /** Asks, and if nobody answers, until somebody does or something is done. Never throws. */
  async look(): Promise<void> {
    if (this.#isLooking || this.#daemon.state !== 'running') return
    this.#isLooking = true
    try {
      const asked = this.#process
      const { api, mount } = await this.#ask()
      if ((api === 'silent' || mount === 'silent') && this.#isSame(asked)) await this.#doubt(asked)
    } catch (error) {
      this.#parts.log.warn(`nydusd ${this.#daemon.id} is not looked after: ${(error as Error).message}`)
    } finally {
      this.#daemon.silence = ''
      this.#isLooking = false
    }
  }

  close(): void {
    this.#closed.abort()
    this.#mount.close()
  }

  #cannotAsk(why: Error): void {
    if (this.#isTroubleTold) return
    this.#isTroubleTold = true
    this.#parts.log.warn(
      `the mount of nydusd ${this.#daemon.id} cannot be asked, only its API is: ${why.message}; "stat" is of coreutils, or of busybox`,
    )
  }

  get #process(): Asking {
    const { ProcessID: pid, APISocket: socket } = this.#daemon.record
    return { pid, socket }
  }

  /** While a successor is tried, it is the one that is asked. */
  #isSame({ pid, socket }: Asking): boolean {
    const now = this.#process
    const isThere = !this.#closed.signal.aborted && this.#daemon.state === 'running'
    return isThere && now.pid === pid && now.socket === socket
  }

  /** From the second question on it is looked whether the daemon could answer at all. */
  async #doubt(asking: Asking): Promise<void> {
    const silence = new Silence(this.#parts.hangTimeoutMs)
    let told = silence.verdict
    while (this.#isSame(asking)) {
      const asked = await this.#askFairly(asking.pid)
      if (!this.#isSame(asking)) return
      if (asked.api !== 'silent' && asked.mount !== 'silent') return this.#answersAgain(silence)
      silence.add(asked)
      this.#daemon.silence = silence.isLong ? silence.text : ''
      this.#parts.log.debug(`nydusd ${this.#daemon.id}: ${silence.text}`)
      const { verdict } = silence
      if (verdict === 'none' || verdict === told) continue
      const isFirst = told === 'none'
      told = verdict
      await this.#daemon.turns.take(async () => await this.#hangs(asking, silence, isFirst))
    }
  }

  #answersAgain(silence: Silence): void {
    if (silence.isLong) this.#parts.log.info(`nydusd ${this.#daemon.id} answers again: ${silence.text} till now`)
  }

  async #askFairly(pid: number): Promise<Asked> {
    const { deadlineMs } = this.#parts
    const before = signsOf(pid)
    const beganMs = performance.now()
    const { api, mount } = await this.#ask()
    // a refusal comes at once, and asking again at once would be no patience
    await sleep(Math.max(0, deadlineMs - (performance.now() - beganMs)), undefined, {
      signal: this.#closed.signal,
      ref: false,
    }).catch(() => undefined)
    const elapsedMs = performance.now() - beganMs
    const after = signsOf(pid)
    if (before === undefined || after === undefined) return { api, mount, elapsedMs, excuse: 'it ends' }
    const isLate = elapsedMs > deadlineMs * 1.25 // this process had no processor: an answer may lie there unread
    const excuse = isLate ? 'this machine is overloaded' : excuseFor(before, after, elapsedMs)
    return { api, mount, elapsedMs, excuse: excuse ?? (api === 'answered' ? await this.#progress() : undefined) }
  }

  async #ask(): Promise<Pick<Asked, 'api' | 'mount'>> {
    const [api, mount] = await Promise.all([this.#askApi(), this.#mount.ask(this.#parts.deadlineMs)])
    return { api, mount }
  }

  async #askApi(): Promise<Asked['api']> {
    const late = deadlineSignal(this.#parts.deadlineMs)
    try {
      await this.#daemon.api.info(late)
      return 'answered'
    } catch (error) {
      if (late.aborted) return 'silent'
      const cause = error instanceof SnapshotterError ? (error.cause as NodeJS.ErrnoException | undefined) : undefined
      return NOBODY.has(cause?.code ?? '') ? 'silent' : 'unknown'
    }
  }

  /** Threads of a mount that all wait for a registry are slow, and do not hang: what they do is other requests from time to time. */
  async #progress(): Promise<string | undefined> {
    const { deadlineMs } = this.#parts
    const told = await this.#daemon.api.metrics('/inflight', undefined, deadlineSignal(deadlineMs)).catch(() => '')
    const before = this.#inflight
    this.#inflight = JSON.stringify(told ?? '')
    return before !== '' && before !== this.#inflight ? 'its reads go on, slowly' : undefined
  }

  /** In its turn: what replaces a daemon keeps it from answering too, and may leave it as it was. What comes after its end is what comes after every death. */
  async #hangs(asking: Asking, { text, verdict }: Silence, isFirst: boolean): Promise<void> {
    const { log, events, recoverPolicy } = this.#parts
    const daemon = this.#daemon
    const { pid, socket } = asking
    if (!this.#isSame(asking)) return
    if (isFirst) events.emit('HUNG', daemon.id, daemon.version.packageVersion)
    const what = `nydusd ${daemon.id} (pid ${pid}) hangs: ${text}`
    if (recoverPolicy === 'none')
      return log.error(`${what}; it is left alone (recover_policy); "kill -9 ${pid}" ends it`)
    const others = (await processesServing(socket)).filter((other) => other !== pid)
    const hasHeir = others.length > 0 || (await daemon.sessions.find()) !== undefined
    if (!hasHeir && verdict === 'api')
      return log.error(
        `${what}; it is left alone, as its containers still read, and would not after its end; "kill -9 ${pid}" ends it`,
      )
    if (!this.#isSame(asking) || !servesSocket(pid, socket)) return
    log.error(`${what}; it is killed, and brought back`)
    for (const keeper of others) signalProcess(keeper, 'SIGCONT') // whoever stopped it may have stopped all of its group
    signalProcess(pid, 'SIGKILL')
  }
}
