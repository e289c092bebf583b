/**
 * What failover needs must outlive this process too: if it dies together with a nydusd, the session's descriptor is in nobody's hands, and all that is open in
 * containers is lost. So a process that only sleeps has a copy of the descriptor, and a file has the state. The next snapshotter takes both up. A service manager that
 * keeps descriptors has one too: what kills a service as a whole kills the process that sleeps.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { takeDescriptor } from '../../kernel/index.ts'
import { forgetDescriptor, keepDescriptor, keptDescriptor } from '../service-manager.ts'
import { writePrivately } from './config-template.ts'
import { signalProcess } from './processes.ts'
import type { DaemonLog } from './settings.ts'
import type { Session } from './supervisor.ts'

const DEVICE = 3
const FUSE_DEVICE = '/dev/fuse'
/** How such a process is known; its value is the path of what it holds. */
const VARIABLE = 'NYDUS_HOLDS_SESSION'
const SLEEP = 'exec sleep 2147483647'

/** A place for one daemon's session: `<path>.state` and `<path>.holder`, both readable for their owner only: states have logins in them. */
export class Holder {
  readonly #path: string
  readonly #log: DaemonLog
  /** The service manager has the descriptor. */
  #isWithManager = false

  constructor(path: string, log: DaemonLog) {
    this.#path = path
    this.#log = log
  }

  get #name(): string {
    return basename(this.#path)
  }

  get #stateFile(): string {
    return `${this.#path}.state`
  }

  get #pidFile(): string {
    return `${this.#path}.holder`
  }

  /** Keeps the session beyond our life. A holder of the same daemon that is there already has the same descriptor: a mount has one session. */
  async keep({ state, device }: Session): Promise<void> {
    await writePrivately(this.#stateFile, state)
    if (this.#pid() === undefined) await this.#start(device)
    if (!this.#isWithManager) this.#isWithManager = keepDescriptor(this.#name, device, this.#log)
  }

  /** What an earlier process of ours kept; undefined after a reboot, or when nobody has the descriptor. Throws KernelError where descriptors may not be taken. */
  async find(): Promise<Session | undefined> {
    const pid = this.#pid()
    const device = pid === undefined ? keptDescriptor(this.#name) : takeDescriptor(pid, DEVICE)
    if (device === undefined) return undefined
    try {
      const state = await readFile(this.#stateFile)
      if (pid === undefined) await this.#start(device)
      return { state, device }
    } catch (error) {
      closeSync(device)
      throw error
    }
  }

  /** Nobody needs it any more: with the descriptor goes the session, if no daemon has it. */
  end(): void {
    const pid = this.#pid()
    if (pid !== undefined) signalProcess(pid, 'SIGKILL')
    for (const file of [this.#stateFile, this.#pidFile]) rmSync(file, { force: true })
    forgetDescriptor(this.#name, this.#log)
    this.#isWithManager = false
  }

  async #start(device: number): Promise<void> {
    const child = spawn('/bin/sh', ['-c', SLEEP], {
      stdio: ['ignore', 'ignore', 'ignore', device],
      detached: true,
      cwd: '/',
      env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', [VARIABLE]: this.#path },
    })
    child.unref()
    await once(child, 'spawn')
    await writePrivately(this.#pidFile, String(child.pid))
  }

  /** Of the holder that lives; the number alone may be another process's. */
  #pid(): number | undefined {
    try {
      const pid = Number(readFileSync(this.#pidFile, 'utf8'))
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
      const isOurs = environment.includes(`${VARIABLE}=${this.#path}`)
      return isOurs && readlinkSync(`/proc/${pid}/fd/${DEVICE}`) === FUSE_DEVICE ? pid : undefined
    } catch {
      return undefined // there was none, or it has ended
    }
  }
}
