/** How a nydusd is started: its command line, a process of its own that outlives us, and the wait until it does what it shall. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { stripVTControlCharacters } from 'node:util'
import { SnapshotterError } from '../errors.ts'
import { DaemonApi, type DaemonInfo } from './api-client.ts'
import { messageOf } from './message.ts'
import { signalProcess, waitUntil } from './processes.ts'
import type { DaemonRecord } from './records.ts'
import { deadlineSignal } from '../../kernel/index.ts'

const TAIL_BYTES = 2_000
const POLL_MS = 20
const LONGEST_POLL_MS = 200
const KILL_MS = 5_000

/** What a command line has beside the record of its daemon. */
export interface LaunchOptions {
  readonly program: string
  /** Of a dedicated daemon. */
  readonly image:
    | { readonly bootstrap: string; readonly config: string; readonly prefetchList: string | undefined }
    | undefined
  /** Wait for a session to take over. */
  readonly isUpgrade: boolean
}

/** In upstream's order; only what is set. */
export function commandLine(of: DaemonRecord, { image, isUpgrade }: Omit<LaunchOptions, 'program'>): string[] {
  const option = (name: string, value: string | number | undefined): string[] =>
    value === undefined || value === '' || value === 0 ? [] : [`--${name}`, String(value)]
  return [
    'fuse',
    ...(isUpgrade ? ['--upgrade'] : []),
    ...option('thread-num', of.ThreadNum),
    ...option('id', of.SupervisorPath === '' ? '' : of.ID),
    ...option('config', image?.config),
    ...option('bootstrap', image?.bootstrap),
    ...option('mountpoint', of.Mountpoint),
    ...option('apisock', of.APISocket),
    ...option('log-level', of.LogLevel),
    ...option('log-rotation-size', of.LogRotationSize),
    ...option('supervisor', of.SupervisorPath),
    ...option('log-file', of.LogToStdout ? '' : logFile(of)),
    ...option('prefetch-files', image?.prefetchList),
    ...option('failover-policy', of.FailoverPolicy),
  ]
}

function logFile(of: DaemonRecord): string {
  return join(of.LogDir, 'nydusd.log')
}

/** Where the original logs when its log is to be rotated. */
function rotatedLogFile(of: DaemonRecord): string {
  return join(of.LogDir, 'nydusd_rCURRENT.log')
}

/** Where a daemon says what it cannot say in its log. */
function outputFile(of: DaemonRecord): string {
  return join(of.LogDir, 'nydusd.out')
}

/** A process that was just started. */
export class Launched {
  readonly pid: number
  /** How it ended; undefined while it runs. */
  ended: string | undefined
  readonly #record: DaemonRecord
  /** Sizes of the files in which it may say something, as they were before. */
  readonly #before: ReadonlyMap<string, number>

  private constructor(record: DaemonRecord, pid: number, before: ReadonlyMap<string, number>) {
    this.#record = record
    this.pid = pid
    this.#before = before
  }

  /** A session of its own and no pipe to us: our end is not its end. Throws SnapshotterError when it cannot be started at all. */
  static async start(record: DaemonRecord, options: LaunchOptions): Promise<Launched> {
    if (!record.LogToStdout) mkdirSync(record.LogDir, { recursive: true, mode: 0o755 })
    const output = record.LogToStdout ? undefined : openSync(outputFile(record), 'a', 0o640)
    try {
      const files = record.LogToStdout ? [] : [outputFile(record), logFile(record), rotatedLogFile(record)]
      const before = new Map(files.map((file) => [file, sizeOf(file)]))
      const out = output ?? 'inherit'
      const child = spawn(options.program, commandLine(record, options), {
        stdio: ['ignore', out, out],
        detached: true,
        cwd: '/',
      })
      child.unref()
      await once(child, 'spawn')
      const launched = new Launched(record, child.pid ?? 0, before)
      child.on('exit', (code, signal) => {
        launched.ended = signal === null ? `it ended with ${code}` : `it was ended by ${signal}`
      })
      return launched
    } catch (error) {
      throw new SnapshotterError(
        'INTERNAL',
        `nydusd ${options.program} cannot be started: ${messageOf(error)}; set daemon.nydusd_path`,
        { cause: error },
      )
    } finally {
      if (output !== undefined) closeSync(output)
    }
  }

  /** Polls until the daemon is in one of the states. Throws SnapshotterError with its last words. */
  async waitFor(states: readonly string[], timeoutMs: number): Promise<DaemonInfo> {
    const api = new DaemonApi(this.#record.APISocket)
    const deadline = performance.now() + timeoutMs
    let last = 'its API does not answer'
    for (let pauseMs = POLL_MS; performance.now() < deadline; pauseMs = Math.min(pauseMs * 1.5, LONGEST_POLL_MS)) {
      if (this.ended !== undefined) throw this.#failure(this.ended)
      try {
        const info = await api.info(deadlineSignal(Math.ceil(deadline - performance.now())))
        if (states.includes(info.state)) return info
        last = `it is ${info.state}`
      } catch (error) {
        last = messageOf(error)
      }
      await sleep(pauseMs)
    }
    throw this.#failure(`it is not ${states.join(' or ')} after ${Math.round(timeoutMs / 1000)} s: ${last}`)
  }

  /**
   * Kills it, with all that it started in its process group, unless it has ended. A nydusd is known by its command line too, but a program that became another one, or a script that waits for one, is known by nothing else. False when it does
   * not end.
   */
  async kill(): Promise<boolean> {
    if (this.ended === undefined) signalProcess(-this.pid, 'SIGKILL')
    return await waitUntil(() => this.ended !== undefined, KILL_MS)
  }

  #failure(why: string): SnapshotterError {
    const said = [...this.#before].map(([file, from]) => tail(file, from)).filter((text) => text !== '')
    const words = said.length === 0 ? '' : `; its last words: ${said.join(' | ')}`
    return new SnapshotterError('UNAVAILABLE', `nydusd ${this.#record.ID} does not serve: ${why}${words}`)
  }
}

function sizeOf(path: string): number {
  try {
    const fd = openSync(path, 'r')
    try {
      return fstatSync(fd).size
    } finally {
      closeSync(fd)
    }
  } catch {
    return 0 // there is none yet
  }
}

/** The end of a file, if it grew beyond `from`. */
function tail(path: string, from: number): string {
  try {
    const fd = openSync(path, 'r')
    try {
      const { size } = fstatSync(fd)
      const at = Math.max(size < from ? 0 : from, size - TAIL_BYTES)
      const bytes = Buffer.alloc(Math.max(0, size - at))
      readSync(fd, bytes, 0, bytes.length, at)
      return stripVTControlCharacters(bytes.toString()).trim().replaceAll('\n', ' / ')
    } finally {
      closeSync(fd)
    }
  } catch {
    return '' // it said nothing
  }
}
