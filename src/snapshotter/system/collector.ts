import { readdirSync, readFileSync } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Log } from '../log/index.ts'
import type { DaemonStatus } from '../daemons/index.ts'
import type { ServedImages, ShownImages } from './daemons.ts'
import { checkedMetrics } from './daemon-json.ts'
import type { SnapshotterMetrics } from './metrics.ts'
import { deadlineSignal } from '../../kernel/index.ts'

/** How long the daemons may take to tell what they count. */
const ASK_MS = 10_000
const STATS_AT_ONCE = 32

/** How often credentials were asked for anew, by image, and which are kept. */
export interface CountedCredentials {
  counts(): {
    readonly renewals: ReadonlyMap<string, { readonly success: number; readonly failure: number }>
    readonly entries: readonly string[]
  }
}

export interface CollectorOptions {
  readonly metrics: SnapshotterMetrics
  readonly images: ServedImages
  readonly kernelImages?: ShownImages | undefined
  readonly credentials: CountedCredentials
  readonly cacheDirectory: string
  /** 0 = at each request for metrics. */
  readonly collectIntervalMs: number
  /** Reads that wait longer hang; looked for as often. 0 = each read that waits. */
  readonly hungIoIntervalMs: number
  readonly log: Log
}

/** Fills the metrics: what is cheap at each request, what daemons must be asked for at an interval. */
export class Collector {
  readonly #options: CollectorOptions
  readonly #timers: NodeJS.Timeout[] = []
  readonly #stopped = new AbortController()
  #collecting: Promise<void> | undefined
  #cpu = process.cpuUsage()
  #cpuAtMs = performance.now()

  constructor(options: CollectorOptions) {
    this.#options = options
    const { collectIntervalMs, hungIoIntervalMs, log } = options
    const every = (ms: number, act: () => Promise<void>): void => {
      if (ms <= 0) return
      const run = (): void => void act().catch((error: unknown) => log.warn(`metrics: ${(error as Error).message}`))
      this.#timers.push(setInterval(run, Math.max(100, ms)).unref())
      run()
    }
    every(collectIntervalMs, () => this.#collect())
    every(hungIoIntervalMs, () => this.#countHung())
  }

  /** The metrics as they are now. */
  async text(): Promise<string> {
    const { collectIntervalMs, hungIoIntervalMs, metrics, images, kernelImages } = this.#options
    if (collectIntervalMs <= 0) await this.#collect()
    if (hungIoIntervalMs <= 0) await this.#countHung()
    this.#takeDaemons(images.list())
    const shown = kernelImages?.list() ?? []
    metrics.erofsMounts.set(shown.length)
    metrics.erofsUsers.set(shown.reduce((sum, { users }) => sum + users.length, 0))
    this.#takeCredentials()
    await this.#takeProcess()
    return metrics.registry.text()
  }

  stop(): void {
    this.#stopped.abort()
    for (const timer of this.#timers) clearInterval(timer)
  }

  /** Once, however many ask. */
  async #collect(): Promise<void> {
    this.#collecting ??= this.#ask().finally(() => (this.#collecting = undefined))
    await this.#collecting
  }

  async #ask(): Promise<void> {
    const { images, metrics, cacheDirectory } = this.#options
    const signal = AbortSignal.any([this.#stopped.signal, deadlineSignal(ASK_MS)])
    metrics.takeReads((await images.metrics(signal)).map(checkedMetrics))
    metrics.cacheUsage.set((await bytesIn(cacheDirectory)) / 1024)
  }

  async #countHung(): Promise<void> {
    const { images, metrics, hungIoIntervalMs } = this.#options
    const signal = AbortSignal.any([this.#stopped.signal, deadlineSignal(ASK_MS)])
    const reads = (await images.metrics(signal)).flatMap((daemon) => checkedMetrics(daemon).inflight)
    const before = (Date.now() - hungIoIntervalMs) / 1000
    metrics.hungIo.set(reads.filter((read) => read.timestamp_secs <= before).length)
  }

  #takeDaemons(daemons: readonly DaemonStatus[]): void {
    const { metrics } = this.#options
    metrics.counts.clear()
    metrics.imageInfo.clear()
    metrics.silent.set(daemons.filter(({ silence }) => silence !== '').length)
    for (const { id, state, version, memoryRssKib, instances } of daemons) {
      if (state !== 'running') continue
      metrics.counts.add(1, version)
      metrics.rss.set(memoryRssKib, id)
      for (const { reference } of instances) metrics.imageInfo.set(1, id, reference)
    }
  }

  #takeCredentials(): void {
    const { metrics, credentials } = this.#options
    const { renewals, entries } = credentials.counts()
    for (const [reference, { success, failure }] of renewals) {
      metrics.renewals.set(success, reference, 'success')
      metrics.renewals.set(failure, reference, 'failure')
    }
    metrics.credentials.clear()
    for (const reference of entries) metrics.credentials.set(1, reference)
  }

  async #takeProcess(): Promise<void> {
    const { metrics } = this.#options
    const { user, system } = process.cpuUsage(this.#cpu)
    const elapsedUs = Math.max(1, (performance.now() - this.#cpuAtMs) * 1000)
    this.#cpu = process.cpuUsage()
    this.#cpuAtMs = performance.now()
    metrics.cpuUser.set(rounded(user / 1e6))
    metrics.cpuSystem.set(rounded(system / 1e6))
    metrics.cpuPercent.set(rounded(((user + system) / elapsedUs) * 100))
    metrics.memory.set(rounded(process.memoryUsage.rss() / 1024))
    metrics.runTime.set(rounded(process.uptime()))
    metrics.fds.set((await readdir('/proc/self/fd')).length)
    metrics.threads.set(threadCount())
  }
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100
}

function threadCount(): number {
  const told = /^Threads:\s*(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return told === null ? readdirSync('/proc/self/task').length : Number(told[1])
}

/** What the files of a directory take on the disk, bytes; those that go away meanwhile take none. */
async function bytesIn(directory: string): Promise<number> {
  const names = await readdir(directory).catch(() => []) // there is no cache yet
  let bytes = 0
  const sizeOf = async (name: string): Promise<void> => {
    const info = await lstat(join(directory, name)).catch(() => undefined)
    bytes += (info?.blocks ?? 0) * 512
  }
  for (let from = 0; from < names.length; from += STATS_AT_ONCE)
    await Promise.all(names.slice(from, from + STATS_AT_ONCE).map(sizeOf))
  return bytes
}
