import { formatBytes } from '../amounts.ts'
import { printable } from './printable.ts'
import type { MountSample, Sample } from './sample.ts'

/** A read that waits longer than this is shown on a line of its own. */
const SLOW_SECONDS = 1

/** A sample as lines of text; with the one before it, also what happened a second since. No line is wider than `width` columns. */
export function tableLines(now: Sample, before: Sample | undefined, width: number): string[] {
  const lines = [summary(now), '']
  if (now.mounts.length === 0) lines.push('nothing is mounted')
  else lines.push(...table(now, before))
  const slow = now.waiting
    .map(({ sinceUnixSeconds }) => now.atUnixMs / 1000 - sinceUnixSeconds)
    .filter((s) => s >= SLOW_SECONDS)
  if (slow.length > 0)
    lines.push(
      '',
      `${slow.length} ${slow.length === 1 ? 'read waits' : 'reads wait'} for data, the first for ${Math.floor(Math.max(...slow))} s`,
    )
  return lines.map((line) => line.trimEnd().slice(0, width))
}

function summary(sample: Sample): string {
  const mounts = sample.mounts.length === 1 ? '1 mount' : `${sample.mounts.length} mounts`
  return `nydusd ${printable(sample.version)} · ${printable(sample.state)} · ${mounts} · ${sample.waiting.length} reads wait`
}

interface Column {
  readonly name: string
  readonly isText?: boolean
  readonly cell: (mount: MountSample, before: MountSample | undefined, seconds: number) => string
}

const TOTALS: readonly Column[] = [
  { name: 'READS', cell: ({ reads }) => String(reads) },
  { name: 'READ', cell: ({ readBytes }) => formatBytes(readBytes) },
]
const RATES: readonly Column[] = [
  { name: 'READS/s', cell: (now, before, seconds) => rate(now.reads, before?.reads, seconds, String) },
  { name: 'READ/s', cell: (now, before, seconds) => rate(now.readBytes, before?.readBytes, seconds, formatBytes) },
]
const FETCH_RATE: Column = {
  name: 'FETCHED/s',
  cell: (now, before, seconds) => rate(now.backend?.bytes, before?.backend?.bytes, seconds, formatBytes),
}
const REST: readonly Column[] = [
  {
    name: 'HITS',
    cell: ({ cache }) =>
      cache === undefined || cache.reads === 0 ? '-' : `${Math.floor((100 * cache.hits) / cache.reads)} %`,
  },
  { name: 'SLOW', cell: ({ slowReads }) => String(slowReads) },
  { name: 'ERRORS', cell: ({ readErrors }) => String(readErrors) },
  { name: 'BACKEND', isText: true, cell: ({ backend }) => (backend === undefined ? '-' : printable(backend.type)) },
  { name: 'REQUESTS', cell: ({ backend }) => (backend === undefined ? '-' : String(backend.requests)) },
  { name: 'FAILED', cell: ({ backend }) => (backend === undefined ? '-' : String(backend.errors)) },
  { name: 'FETCHED', cell: ({ backend }) => (backend === undefined ? '-' : formatBytes(backend.bytes)) },
]

function table(now: Sample, before: Sample | undefined): string[] {
  const place: Column = { name: 'MOUNT', isText: true, cell: ({ mountpoint }) => shortened(printable(mountpoint)) }
  const columns = before === undefined ? [place, ...TOTALS, ...REST] : [place, ...TOTALS, ...RATES, ...REST, FETCH_RATE]
  const seconds = before === undefined ? 0 : (now.atUnixMs - before.atUnixMs) / 1000
  const rows = now.mounts.map((mount) => {
    const old = before?.mounts.find(({ mountpoint }) => mountpoint === mount.mountpoint)
    return columns.map(({ cell }) => cell(mount, old, seconds))
  })
  const all = [columns.map(({ name }) => name), ...rows]
  const widths = columns.map((_column, index) => Math.max(...all.map((cells) => cells[index]?.length ?? 0)))
  return all.map((cells) =>
    cells
      .map((cell, index) =>
        columns[index]?.isText === true ? cell.padEnd(widths[index] ?? 0) : cell.padStart(widths[index] ?? 0),
      )
      .join('  '),
  )
}

/** A mount of the same name that began anew has less than before: it starts at 0. */
function rate(
  now: number | undefined,
  before: number | undefined,
  seconds: number,
  show: (value: number) => string,
): string {
  if (now === undefined || before === undefined || seconds <= 0) return '-'
  return show(Math.round(Math.max(0, now - before) / seconds))
}

const LONGEST = 40

/** The end of a path tells most. */
function shortened(path: string): string {
  return path.length <= LONGEST ? path : `…${path.slice(1 - LONGEST)}`
}
