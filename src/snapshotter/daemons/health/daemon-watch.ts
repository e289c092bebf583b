import { setTimeout as sleep } from 'node:timers/promises'
import { SnapshotterError } from '../../errors.ts'
import type { Nydusd } from '../daemon.ts'
import type { DaemonEvents } from '../events.ts'
import { processesServing, servesSocket, signalProcess } from '../processes.ts'
import type { DaemonLog, DaemonSettings } from '../settings.ts'
import { MountQuestion } from './mount-question.ts'
import { excuseFor, signsOf } from './process-signs.ts'
import { type Asked, Silence } from './silence.ts'

export interface WatchParts {
  readonly log: DaemonLog
  readonly events: DaemonEvents
  readonly recoverPolicy: DaemonSettings['daemon']['recoverPolicy']
  /** A daemon that does not answer for so long hangs. */
  readonly hangTimeoutMs: number
  /** Of one question. */
  readonly deadlineMs: number
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
  /** Its requests under way, when its mount was silent last. */
  #inflight = ''

  constructor(daemon: Nydusd, parts: WatchParts) {
    this.#daemon = daemon
    this.#parts = parts
    this.#mount = new MountQuestion(daemon.record.Mountpoint)
  }

  /** Asks, and if nobody answers, until somebody does or something is done. Never throws. */
  async look(): Promise<void> {
    if (this.#isLooking || this.#daemon.state !== 'running') return
    this.#isLooking = true
    try {
      const { pid } = this
      const { api, mount } = await this.#ask()
      if ((api === 'silent' || mount === 'silent') && this.#isSame(pid)) await this.#doubt(pid)
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

  get pid(): number {
    return this.#daemon.record.ProcessID
  }

  #isSame(pid: number): boolean {
    return !this.#closed.signal.aborted && this.#daemon.state === 'running' && this.pid === pid
  }

  /** From the second question on it is looked whether the daemon could answer at all. */
  async #doubt(pid: number): Promise<void> {
    const silence = new Silence(this.#parts.hangTimeoutMs)
    let told = silence.verdict
    while (this.#isSame(pid)) {
      const asked = await this.#askFairly(pid)
      if (!this.#isSame(pid)) return
      if (asked.api !== 'silent' && asked.mount !== 'silent') return this.#answersAgain(silence)
      silence.add(asked)
      this.#daemon.silence = silence.isLong ? silence.text : ''
      this.#parts.log.debug(`nydusd ${this.#daemon.id}: ${silence.text}`)
      const { verdict } = silence
      if (verdict === 'none' || verdict === told) continue
      if (told === 'none') this.#parts.events.emit('HUNG', this.#daemon.id, this.#daemon.version.packageVersion)
      told = verdict
      await this.#end(pid, silence)
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
    const late = AbortSignal.timeout(this.#parts.deadlineMs)
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
    const told = await this.#daemon.api.metrics('/inflight', undefined, AbortSignal.timeout(deadlineMs)).catch(() => '')
    const before = this.#inflight
    this.#inflight = JSON.stringify(told ?? '')
    return before !== '' && before !== this.#inflight ? 'its reads go on, slowly' : undefined
  }

  /** As the policy says. What comes after its end is what comes after every death. */
  async #end(pid: number, { text, verdict }: Silence): Promise<void> {
    const { log, recoverPolicy } = this.#parts
    const daemon = this.#daemon
    const what = `nydusd ${daemon.id} (pid ${pid}) hangs: ${text}`
    if (recoverPolicy === 'none')
      return log.error(`${what}; it is left alone (recover_policy); "kill -9 ${pid}" ends it`)
    const others = (await processesServing(daemon.record.APISocket)).filter((other) => other !== pid)
    const hasHeir = others.length > 0 || (await daemon.sessions.find()) !== undefined
    if (!hasHeir && verdict === 'api')
      return log.error(
        `${what}; it is left alone, as its containers still read, and would not after its end; "kill -9 ${pid}" ends it`,
      )
    await daemon.turns.take(async () => {
      if (!this.#isSame(pid) || !servesSocket(pid, daemon.record.APISocket)) return
      log.error(`${what}; it is killed, and brought back`)
      for (const keeper of others) signalProcess(keeper, 'SIGCONT') // whoever stopped it may have stopped all of its group
      signalProcess(pid, 'SIGKILL')
      await Promise.resolve()
    })
  }
}
