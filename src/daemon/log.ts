import { closeSync, constants, fstatSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { extname } from 'node:path'

export const LOG_LEVELS = ['off', 'error', 'warn', 'info', 'debug', 'trace'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Where lines go. */
export interface LogOptions {
  readonly level: LogLevel
  /** Appended to, made if absent, `.log` added when it has no extension; undefined = stderr. */
  readonly file: string | undefined
  /** A file that grew beyond this is put aside; 0 = never. */
  readonly rotationBytes: number
  /** Lines beyond this level, or in which the text is not found, are left out, whatever the level. */
  readonly filter?: LogFilter | undefined
}

export interface LogFilter {
  readonly most: LogLevel
  readonly text: RegExp | undefined
}

/** Files that rotation keeps, the one in use not counted. */
const KEPT_FILES = 10
/** O_NONBLOCK: a FIFO that nobody reads is refused, where it would hang us. */
const APPEND = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK

/** Log lines in upstream's layout: `[2026-11-27 01:02:03.000000 +00:00] INFO message`. Written at once: what a dying process said is there. */
export class Log {
  #level: number
  #fd: number
  #size = 0
  readonly #path: string | undefined
  readonly #rotationBytes: number
  readonly #most: number
  readonly #text: RegExp | undefined

  /** Throws what opening the file throws. */
  constructor(options: LogOptions) {
    this.#level = LOG_LEVELS.indexOf(options.level)
    this.#rotationBytes = options.rotationBytes
    this.#most = LOG_LEVELS.indexOf(options.filter?.most ?? 'trace')
    this.#text = options.filter?.text
    this.#path =
      options.file === undefined ? undefined : extname(options.file) === '' ? `${options.file}.log` : options.file
    this.#fd = this.#path === undefined ? 2 : openSync(this.#path, APPEND, 0o644)
    if (this.#path !== undefined) this.#size = fstatSync(this.#fd).size
  }

  get level(): LogLevel {
    return LOG_LEVELS[this.#level] ?? 'info'
  }
  set level(level: LogLevel) {
    this.#level = LOG_LEVELS.indexOf(level)
  }

  error(message: string): void {
    this.#write(1, 'ERROR', message)
  }
  warn(message: string): void {
    this.#write(2, 'WARN', message)
  }
  info(message: string): void {
    this.#write(3, 'INFO', message)
  }
  debug(message: string): void {
    this.#write(4, 'DEBUG', message)
  }

  close(): void {
    if (this.#path !== undefined) closeSync(this.#fd)
  }

  #write(level: number, name: string, message: string): void {
    if (level > this.#level || level > this.#most || this.#text?.test(message) === false) return
    const stamp = new Date().toISOString().replace('T', ' ').replace('Z', '000 +00:00')
    const line = Buffer.from(`[${stamp}] ${name} ${message.replaceAll('\n', ' ')}\n`)
    try {
      if (this.#rotationBytes > 0 && this.#size + line.length > this.#rotationBytes) this.#rotate()
      writeSync(this.#fd, line)
      this.#size += line.length
    } catch {
      // a full disk or a closed stderr must not end the daemon, and there is no other place to tell
    }
  }

  #rotate(): void {
    const path = this.#path
    if (path === undefined || this.#size === 0) return
    rmSync(`${path}.${KEPT_FILES}`, { force: true })
    for (let number = KEPT_FILES - 1; number >= 0; number--) {
      try {
        renameSync(number === 0 ? path : `${path}.${number}`, `${path}.${number + 1}`)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error // ENOENT: so many there are not yet
      }
    }
    const fd = openSync(path, 'a', 0o644)
    closeSync(this.#fd)
    this.#fd = fd
    this.#size = 0
  }
}
