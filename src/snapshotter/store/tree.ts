/** Directories of unknown size and names: read a part at a time, by paths of bytes, and never through a mount. */
import type { Dirent } from 'node:fs'
import { opendir } from 'node:fs/promises'

/** A path whose characters are its bytes, as names in images need not be text. */
export type BytePath = string

/** Entries that are looked at at once; the process's threads for files need no more. */
const BATCH = 64

export function toBytePath(path: string): BytePath {
  return Buffer.from(path).toString('latin1')
}

export function toBuffer(path: BytePath): Buffer {
  return Buffer.from(path, 'latin1')
}

/** For messages. */
export function shown(path: BytePath): string {
  return toBuffer(path).toString()
}

/** The entries of a directory, so many at a time. Aborting the signal throws its reason. */
export async function* readEntries(path: BytePath, signal: AbortSignal): AsyncGenerator<Dirent[]> {
  const directory = await opendir(toBuffer(path), { encoding: 'latin1', bufferSize: BATCH })
  try {
    for (let isOver = false; !isOver; ) {
      signal.throwIfAborted()
      const batch: Dirent[] = []
      while (batch.length < BATCH && !isOver) {
        const entry = await directory.read()
        if (entry === null) isOver = true
        else batch.push(entry)
      }
      if (batch.length > 0) yield batch
    }
  } finally {
    await directory.close()
  }
}

export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}
