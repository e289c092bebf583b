import { writeSync } from 'node:fs'
import { join } from 'node:path'
import { plainLine } from './plain-text.ts'
import { RotatedFile } from './rotated-file.ts'

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LEVELS)[number]

/** Where the parts of the snapshotter tell what they do: a line an event, at the edge that handles it. */
export interface Log {
  error(message: string): void
  warn(message: string): void
  info(message: string): void
  debug(message: string): void
  trace(message: string): void
}

export interface LogOptions {
  readonly toStdout: boolean
  readonly level: LogLevel
  /** Directory of `nydus-snapshotter.log`. */
  readonly dir: string
  readonly maxSizeMib: number
  readonly maxBackups: number
  readonly maxAgeDays: number
  readonly localTime: boolean
  readonly compress: boolean
}

const FILE = 'nydus-snapshotter.log'
const DAY_MS = 86_400_000
const STDOUT = 1

/** `2026-11-27T16:00:00.000+01:00 INFO  message`, to a file or to stdout. Secrets are hidden, control characters escaped. */
export class SnapshotterLog implements Log {
  readonly #level: number
  readonly #file: RotatedFile | undefined
  #isClosed = false

  /** Throws what opening the file throws. */
  constructor(options: LogOptions, now: () => Date = () => new Date()) {
    this.#level = LEVELS.indexOf(options.level)
    if (options.toStdout) return
    this.#file = new RotatedFile({
      path: join(options.dir, FILE),
      maxBytes: options.maxSizeMib * 2 ** 20,
      maxBackups: options.maxBackups,
      maxAgeMs: options.maxAgeDays * DAY_MS,
      localTime: options.localTime,
      compress: options.compress,
      now,
    })
  }

  error(message: string): void {
    this.#write('error', message)
  }
  warn(message: string): void {
    this.#write('warn', message)
  }
  info(message: string): void {
    this.#write('info', message)
  }
  debug(message: string): void {
    this.#write('debug', message)
  }
  trace(message: string): void {
    this.#write('trace', message)
  }

  /** What comes later is dropped. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.#file?.close()
  }

  #write(level: LogLevel, message: string): void {
    if (LEVELS.indexOf(level) < this.#level || this.#isClosed) return
    const line = Buffer.from(`${localStamp(new Date())} ${level.toUpperCase().padEnd(5)} ${plainLine(message)}\n`)
    try {
      if (this.#file === undefined) writeSync(STDOUT, line)
      else this.#file.write(line)
    } catch {
      // a full disk or a closed pipe must not end the snapshotter, and there is no other place to tell
    }
  }
}

function localStamp(date: Date): string {
  const offset = -date.getTimezoneOffset()
  const local = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, -1)
  const pair = (count: number): string => String(count).padStart(2, '0')
  const ahead = Math.abs(offset)
  return `${local}${offset < 0 ? '-' : '+'}${pair(Math.floor(ahead / 60))}:${pair(ahead % 60)}`
}
