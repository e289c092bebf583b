/** A process that reads pieces of files on a mount, past the kernel's cache, and compares every byte with the source, until SIGTERM. Then it tells what it saw, as a line of JSON. */
import { closeSync, constants, openSync, readdirSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'

/** What a reader tells. */
export interface ReaderReport {
  readonly reads: number
  readonly bytes: number
  readonly wrong: readonly string[]
  readonly errors: readonly string[]
  /** Milliseconds of all reads: counts of 0, 1, 2, … ms, the last one of all that took longer. */
  readonly latencies: readonly number[]
  /** Those above 20 ms: Unix ms of the beginning, and how long. */
  readonly slow: ReadonlyArray<readonly [startedAt: number, ms: number]>
}

const SLOW_MS = 20
const LONGEST_MS = 5_000
const MAX_PIECE = 128 << 10
const MOST_TOLD = 20

const [mount = '', source = ''] = process.argv.slice(2)
const files = readdirSync(source)
const [got, wanted] = [Buffer.alloc(MAX_PIECE), Buffer.alloc(MAX_PIECE)]
const wrong: string[] = []
const errors: string[] = []
const slow: Array<[number, number]> = []
const latencies = Array.from({ length: LONGEST_MS + 1 }, () => 0)
let [reads, bytes] = [0, 0]
const end = new AbortController()
process.on('SIGTERM', () => end.abort())

function readPiece(): void {
  const name = files[Math.floor(Math.random() * files.length)] ?? ''
  const { size } = statSync(join(source, name))
  const offset = Math.floor((Math.random() * size) / 4096) * 4096
  const startedAt = Date.now()
  const from = performance.now()
  let count = 0
  try {
    count = readAt(join(mount, name), constants.O_RDONLY | constants.O_DIRECT, got, offset)
  } catch (error) {
    if (errors.length < MOST_TOLD) errors.push(`${name} at ${offset}: ${String(error)}`)
  }
  const ms = performance.now() - from
  latencies[Math.min(LONGEST_MS, Math.floor(ms))]++
  if (ms > SLOW_MS) slow.push([startedAt, ms])
  const right = readAt(join(source, name), constants.O_RDONLY, wanted, offset)
  if ((count !== right || !got.subarray(0, count).equals(wanted.subarray(0, right))) && wrong.length < MOST_TOLD)
    wrong.push(`${name} at ${offset}: ${count} bytes, wanted ${right}`)
  reads++
  bytes += count
}

function readAt(path: string, flags: number, into: Buffer, offset: number): number {
  const fd = openSync(path, flags)
  try {
    return readSync(fd, into, 0, MAX_PIECE, offset)
  } finally {
    closeSync(fd)
  }
}

while (!end.signal.aborted) {
  readPiece()
  if (reads % 4 === 0) await turn()
}
const report: ReaderReport = { reads, bytes, wrong, errors, latencies, slow }
process.stdout.write(`${JSON.stringify(report)}\n`)
