import { closeSync, openSync, writeSync } from 'node:fs'
import type { LogLevel } from './arguments.ts'
import { LOG_LEVELS } from './arguments.ts'

/** Lines in the original's form: `[2026-01-31 12:00:00.123456 +01:00] INFO text`. */
export interface Log {
  info(text: string): void
  warn(text: string): void
  error(text: string): void
  debug(text: string): void
  close(): void
}

/** Appends to `file`, or writes to stderr. A file name without an extension gains `.log`, as in the original. */
export function openLog(level: LogLevel, file: string | undefined): Log {
  const path = file === undefined || /\.[^./]+$/.test(file) ? file : `${file}.log`
  const fd = path === undefined ? 2 : openSync(path, 'a', 0o644)
  const write = (at: LogLevel, text: string): void => {
    if (LOG_LEVELS.indexOf(at) < LOG_LEVELS.indexOf(level)) return
    const line = Buffer.from(`[${timestamp(new Date())}] ${at.toUpperCase()} ${text}\n`)
    for (let written = 0; written < line.length; ) written += writeSync(fd, line, written)
  }
  return {
    info: (text) => write('info', text),
    warn: (text) => write('warn', text),
    error: (text) => write('error', text),
    debug: (text) => write('debug', text),
    close: () => {
      if (fd !== 2) closeSync(fd)
    },
  }
}

function timestamp(at: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0')
  const offset = -at.getTimezoneOffset()
  const zone = `${offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}000 ${zone}`
}
