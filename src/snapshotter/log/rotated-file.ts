import { closeSync, constants, fstatSync, mkdirSync, openSync, readdirSync, renameSync, writeSync } from 'node:fs'
import { createReadStream, createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'

export interface RotationOptions {
  readonly path: string
  /** A file that would grow beyond this is put aside; 0 = never. */
  readonly maxBytes: number
  /** Files put aside that are kept; 0 = all. */
  readonly maxBackups: number
  /** How long they are kept, milliseconds; 0 = for ever. */
  readonly maxAgeMs: number
  /** Their names tell local time, else UTC. */
  readonly localTime: boolean
  readonly compress: boolean
  readonly now: () => Date
}

/** O_NONBLOCK: a FIFO that nobody reads is refused, where it would hang us. */
const APPEND = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK
const UNFINISHED = '.tmp'

/**
 * A file that lines are appended to, put aside by size as `name-2026-11-27T16-00-00.000.log`, then compressed and removed by number and age in the
 * background: the names and rules of upstream's program. Written at once: what a dying process said is there.
 */
export class RotatedFile {
  readonly #options: RotationOptions
  #fd: number
  #size: number
  #tidying: Promise<void> = Promise.resolve()

  /** Makes the directory, appends to a file that is there. Throws what the system says. */
  constructor(options: RotationOptions) {
    this.#options = options
    mkdirSync(dirname(options.path), { recursive: true, mode: 0o755 })
    this.#fd = openSync(options.path, APPEND, 0o600)
    this.#size = fstatSync(this.#fd).size
    this.#tidyLater()
  }

  /** Throws what the system says, after which the next line may still be written. */
  write(line: Uint8Array): void {
    const { maxBytes } = this.#options
    if (maxBytes > 0 && this.#size > 0 && this.#size + line.length > maxBytes) this.#putAside()
    writeSync(this.#fd, line)
    this.#size += line.length
  }

  /** Waits for what is compressed. */
  async close(): Promise<void> {
    closeSync(this.#fd)
    await this.#tidying
  }

  #putAside(): void {
    const { path } = this.#options
    try {
      renameSync(path, this.#backupPath())
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error // somebody took it away; a new one is begun
    }
    const fd = openSync(path, APPEND, 0o600)
    closeSync(this.#fd)
    this.#fd = fd
    this.#size = 0
    this.#tidyLater()
  }

  #backupPath(): string {
    const { path, now, localTime } = this.#options
    const extension = extname(path)
    const taken = new Set(readdirSync(dirname(path)))
    for (let later = 0; ; later++) {
      const stamp = stampOf(new Date(now().getTime() + later), localTime)
      const name = `${basename(path, extension)}-${stamp}${extension}`
      if (!taken.has(name) && !taken.has(`${name}.gz`)) return join(dirname(path), name)
    }
  }

  /** One after the other: two rounds would compress the same file. */
  #tidyLater(): void {
    this.#tidying = this.#tidying.then(async () => await this.#tidy()).catch(() => undefined) // a full disk, or a file that somebody took away: the next round tries again, and there is no log to tell it
  }

  async #tidy(): Promise<void> {
    const { maxBackups, maxAgeMs, compress, now } = this.#options
    const backups = this.#backups()
    const oldest = maxAgeMs === 0 ? Number.NEGATIVE_INFINITY : now().getTime() - maxAgeMs
    for (const [index, { path, time }] of backups.entries()) {
      const isOver = (maxBackups > 0 && index >= maxBackups) || time < oldest
      if (isOver) await rm(path, { force: true })
      else if (compress && !path.endsWith('.gz')) await compressFile(path)
    }
  }

  /** Newest first. */
  #backups(): Array<{ readonly path: string; readonly time: number }> {
    const { path, localTime } = this.#options
    const extension = extname(path)
    const prefix = `${basename(path, extension)}-`
    return readdirSync(dirname(path))
      .filter((name) => name.startsWith(prefix) && (name.endsWith(extension) || name.endsWith(`${extension}.gz`)))
      .map((name) => ({
        path: join(dirname(path), name),
        time: timeOf(name.slice(prefix.length).replace(/\.gz$/, '').slice(0, -extension.length), localTime),
      }))
      .filter(({ time }) => !Number.isNaN(time))
      .sort((a, b) => b.time - a.time)
  }
}

async function compressFile(path: string): Promise<void> {
  const { createGzip } = await import('node:zlib')
  const unfinished = `${path}.gz${UNFINISHED}`
  try {
    await pipeline(createReadStream(path), createGzip(), createWriteStream(unfinished, { mode: 0o600 }))
    await rename(unfinished, `${path}.gz`)
  } catch (error) {
    await rm(unfinished, { force: true })
    throw error
  }
  await rm(path, { force: true })
}

/** `2026-11-27T16-00-00.000`. */
function stampOf(date: Date, localTime: boolean): string {
  const at = localTime ? new Date(date.getTime() - date.getTimezoneOffset() * 60_000) : date
  return at.toISOString().slice(0, -1).replaceAll(':', '-')
}

function timeOf(stamp: string, localTime: boolean): number {
  const parts = /^(\d{4}-\d\d-\d\d)T(\d\d)-(\d\d)-(\d\d\.\d{3})$/.exec(stamp)
  return parts === null
    ? Number.NaN
    : Date.parse(`${parts[1]}T${parts[2]}:${parts[3]}:${parts[4]}${localTime ? '' : 'Z'}`)
}
