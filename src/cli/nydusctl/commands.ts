import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { ExitError } from '../output.ts'
import { osError } from '../os-error.ts'
import type { NydusdClient } from './client.ts'
import { infoText } from './info.ts'
import { type Json, sortedJson } from './json.ts'
import { backendDelta, backendText, cacheText, deltaText, fileSystemText } from './metrics-text.ts'

/** Flags that all commands have. */
export interface CommonFlags {
  readonly raw?: boolean
  readonly json?: boolean
}

export interface MetricsFlags extends CommonFlags {
  readonly interval?: string
}

export interface MountFlags extends CommonFlags {
  readonly source: string
  readonly config: string
  readonly mountpoint: string
  readonly type: 'rafs' | 'passthrough_fs'
}

const METRICS = {
  backend: { path: 'v1/metrics/backend', text: backendText },
  cache: { path: 'v1/metrics/blobcache', text: cacheText },
  fsstats: { path: 'v1/metrics', text: fileSystemText },
} as const
const MAX_INTERVAL = 2 ** 32 - 1
/** The longest pause that a timer takes. */
const MAX_PAUSE_MS = 2 ** 31 - 1

export async function showInfo(client: NydusdClient, flags: CommonFlags): Promise<void> {
  show(await client.get('v1/daemon'), infoText, flags)
}

export async function setParameter(
  client: NydusdClient,
  _kind: 'log-level',
  value: string,
  flags: CommonFlags,
): Promise<void> {
  await client.change({ method: 'PUT', path: 'v1/daemon', body: { log_level: value } })
  done(flags)
}

export async function showMetrics(
  client: NydusdClient,
  category: keyof typeof METRICS,
  flags: MetricsFlags,
  signal: AbortSignal,
): Promise<void> {
  const { path, text } = METRICS[category]
  const interval = flags.interval === undefined ? undefined : secondsOf(flags.interval)
  const first = await client.get(path)
  if (interval !== undefined && category === 'backend') return await follow(client, first, interval, flags, signal)
  if (interval !== undefined)
    process.stderr.write(
      'nydusctl: --interval works for "metrics backend" only; "nydusctl top" shows all again and again\n',
    )
  show(first, text, flags)
}

/** Until a signal ends it. */
async function follow(
  client: NydusdClient,
  first: Json,
  seconds: number,
  flags: CommonFlags,
  signal: AbortSignal,
): Promise<void> {
  for (let before = first; ; ) {
    await sleep(Math.min(seconds * 1000, MAX_PAUSE_MS), undefined, { signal })
    const now = await client.get(METRICS.backend.path)
    const delta = backendDelta(before, now, seconds)
    process.stdout.write(flags.json === true ? `${JSON.stringify(delta)}\n` : deltaText(delta))
    before = now
  }
}

export async function mount(client: NydusdClient, flags: MountFlags): Promise<void> {
  const { source, config: file, mountpoint, type } = flags
  let config: string
  try {
    config = readFileSync(file, 'utf8')
  } catch (error) {
    throw new ExitError(1, `failed to read mount config ${file}`, { cause: new Error(osError(error)) })
  }
  await client.change({
    method: 'POST',
    path: 'v1/mount',
    query: { mountpoint },
    body: { source, fs_type: type, config },
  })
  done(flags)
}

export async function umount(client: NydusdClient, mountpoint: string, flags: CommonFlags): Promise<void> {
  await client.change({ method: 'DELETE', path: 'v1/mount', query: { mountpoint } })
  done(flags)
}

/** Whole seconds, 1 at least. Throws ExitError. */
export function secondsOf(text: string): number {
  const value = /^\+?\d{1,10}$/.test(text) ? Number(text) : Number.NaN
  if (Number.isNaN(value))
    throw new ExitError(1, 'Invalid interval input. invalid digit found in string: give whole seconds')
  if (value < 1 || value > MAX_INTERVAL)
    throw new ExitError(1, `Invalid interval input. ${text} is not between 1 and ${MAX_INTERVAL} seconds`)
  return value
}

function show(answer: Json, text: (answer: Json) => string, flags: CommonFlags): void {
  const isJson = flags.raw === true || flags.json === true
  process.stdout.write(isJson ? `${sortedJson(answer)}\n` : text(answer))
}

/** A change says nothing to people when it is done. */
function done(flags: CommonFlags): void {
  if (flags.json === true) process.stdout.write('{"done":true}\n')
}
