import { closeSync, openSync, writeSync } from 'node:fs'
import { hideBars } from '../output.ts'

/** Levels of the original, the worst first. */
export const LOG_LEVELS = ['panic', 'fatal', 'error', 'warning', 'info', 'debug', 'trace'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]
type Fields = Readonly<Record<string, string | number>>

/** Lines as the original's logger writes them: `time="…" level=info msg="…" key=value`, shorter on a terminal. */
export class Log {
  readonly #level: number
  readonly #fd: number

  private constructor(level: LogLevel, fd: number) {
    this.#level = LOG_LEVELS.indexOf(level)
    this.#fd = fd
  }

  /** Opens what the global flags ask for. What is wrong with them is told and has a way out, as in the original. */
  static open(flags: { readonly debug?: boolean; readonly logLevel: string; readonly logFile?: string }): Log {
    const stderr = new Log('info', 2)
    if (flags.debug === true) return new Log('debug', 2)
    const level = parseLevel(flags.logLevel)
    if (level === undefined)
      stderr.warning(
        `failed to parse log level(${flags.logLevel}): not a valid logrus Level: ${JSON.stringify(flags.logLevel)}\ndefault log level(info) will be used`,
      )
    if (flags.logFile === undefined || flags.logFile === '') return new Log(level ?? 'info', 2)
    try {
      return new Log(level ?? 'info', openSync(flags.logFile, 'a', 0o644))
    } catch (error) {
      stderr.error(`failed to open log file: ${(error as Error).message}`)
      return new Log(level ?? 'info', 2)
    }
  }

  /** True when lines of this level are written, and to the terminal or pipe that people look at. */
  shows(level: LogLevel): boolean {
    return this.#fd === 2 && LOG_LEVELS.indexOf(level) <= this.#level
  }

  debug(message: string, fields: Fields = {}): void {
    this.#write('debug', message, fields)
  }

  info(message: string, fields: Fields = {}): void {
    this.#write('info', message, fields)
  }

  warning(message: string, fields: Fields = {}): void {
    this.#write('warning', message, fields)
  }

  error(message: string, fields: Fields = {}): void {
    this.#write('error', message, fields)
  }

  fatal(message: string): void {
    this.#write('fatal', message, {})
  }

  close(): void {
    if (this.#fd !== 2) closeSync(this.#fd)
  }

  #write(level: LogLevel, message: string, fields: Fields): void {
    if (LOG_LEVELS.indexOf(level) > this.#level) return
    const isTerminal = this.#fd === 2 && process.stderr.isTTY
    const line = Buffer.from(isTerminal ? terminalLine(level, message, fields) : plainLine(level, message, fields))
    if (this.#fd === 2) {
      hideBars()
      process.stderr.write(line)
    } else for (let at = 0; at < line.length; ) at += writeSync(this.#fd, line, at)
  }
}

function parseLevel(text: string): LogLevel | undefined {
  const wanted = text.toLowerCase() === 'warn' ? 'warning' : text.toLowerCase()
  return LOG_LEVELS.find((level) => level === wanted)
}

function plainLine(level: LogLevel, message: string, fields: Fields): string {
  return `time="${now()}" level=${level} msg=${quoted(message)}${shownFields(fields)}\n`
}

function terminalLine(level: LogLevel, message: string, fields: Fields): string {
  return `${level.slice(0, 4).toUpperCase()}[${now()}] ${message.padEnd(44)}${shownFields(fields)}\n`
}

function now(): string {
  return `${new Date().toISOString().slice(0, 19)}Z`
}

function shownFields(fields: Fields): string {
  return Object.entries(fields)
    .map(([name, value]) => ` ${name}=${quoted(String(value))}`)
    .join('')
}

function quoted(text: string): string {
  return /^[A-Za-z0-9\-._/@^+]+$/.test(text) ? text : JSON.stringify(text)
}
