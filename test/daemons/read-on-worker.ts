/** Reads the files that it is given, past the kernel's memory, until it is told to stop, with a pause (ms, first argument) between; tells how often, and what was not as at first. */
import { createHash } from 'node:crypto'
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'

const [pauseMs, ...files] = process.argv.slice(2)
const seen = new Map<string, string>()
const errors = new Set<string>()
const stopping = new AbortController()
process.on('message', () => stopping.abort())

function digest(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT)
  try {
    const hash = createHash('sha256')
    const part = Buffer.alloc(16 << 10)
    for (let at = 0, got = 1; got > 0; at += got) {
      got = readSync(fd, part, 0, part.length, at)
      hash.update(part.subarray(0, got))
    }
    return hash.digest('hex')
  } finally {
    closeSync(fd)
  }
}

for (let rounds = 0; !stopping.signal.aborted; rounds++) {
  for (const path of files)
    try {
      const now = digest(path)
      const before = seen.get(path) ?? now
      seen.set(path, before)
      if (now !== before) errors.add(`${path}: other bytes`)
    } catch (error) {
      errors.add(`${path}: ${(error as NodeJS.ErrnoException).code}`)
    }
  process.send?.({ rounds, errors: [...errors] })
  await (Number(pauseMs) > 0
    ? sleep(Number(pauseMs), undefined, { signal: stopping.signal }).catch(() => undefined)
    : turn())
}
process.send?.({ rounds: 0, errors: [...errors] })
process.disconnect()
