import { closeSync, openSync, writeSync } from 'node:fs'
import { ExitError, hideBars } from '../output.ts'
import { type CommonFlags, LOG_LEVELS, type LogLevel } from './arguments.ts'
import { logFilter } from '../log-filter.ts'
import { osError } from '../os-error.ts'

/** Lines in the original's form: `[2026-01-31 12:00:00.123456 +01:00] INFO text`. */
export interface Log {
  info(text: string): void
  warn(text: string): void
  error(text: string): void
}

/** Runs `action` with the log that the flags ask for, and closes it. A file name without an extension gains `.log`, as in the original. */
export async function withLog(flags: CommonFlags, action: (log: Log) => Promise<void>): Promise<void> {
  const { logFile, logLevel = 'info' } = flags
  const filter = logFilter('nydus_image')
  const least = filter?.most ?? logLevel
  const fd = logFile === undefined ? 2 : openLogFile(/\.[^./]+$/.test(logFile) ? logFile : `${logFile}.log`)
  const write = (at: LogLevel, text: string): void => {
    if (LOG_LEVELS.indexOf(at) < LOG_LEVELS.indexOf(logLevel)) return
    if (least === 'off' || LOG_LEVELS.indexOf(at) < LOG_LEVELS.indexOf(least)) return
    if (filter?.text?.test(text) === false) return
    const line = `[${timestamp(new Date())}] ${at.toUpperCase()} ${text}\n`
    if (fd === 2) {
      hideBars()
      process.stderr.write(line)
    } else writeAll(fd, Buffer.from(line))
  }
  try {
    await action({
      info: (text) => write('info', text),
      warn: (text) => write('warn', text),
      error: (text) => write('error', text),
    })
  } finally {
    if (fd !== 2) closeSync(fd)
  }
}

function openLogFile(path: string): number {
  try {
    return openSync(path, 'a', 0o644)
  } catch (error) {
    throw new ExitError(1, `cannot append to --log-file ${path}`, { cause: new Error(osError(error)) })
  }
}

function writeAll(fd: number, line: Uint8Array): void {
  for (let written = 0; written < line.length; ) written += writeSync(fd, line, written)
}

function timestamp(at: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0')
  const offset = -at.getTimezoneOffset()
  const zone = `${offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
  const microseconds = `${String(at.getMilliseconds()).padStart(3, '0')}000`
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${microseconds} ${zone}`
}
