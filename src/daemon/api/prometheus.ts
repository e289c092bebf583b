import { readdirSync } from 'node:fs'
import { LATENCY_BUCKETS_MS } from '../../backend/index.ts'
import type { Daemon } from '../daemon.ts'
import { FOP, LATENCY_BOUNDS_US, SIZE_BOUNDS } from '../metrics.ts'
import type { Mount } from '../mount-opener.ts'
import { versionInfo } from '../version/index.ts'

/** The form that Prometheus reads: https://prometheus.io/docs/instrumenting/exposition_formats/ */
export const PROMETHEUS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

type Labels = Readonly<Record<string, string>>

/** Families of samples, in the order of their first sample. */
class Exposition {
  readonly #families = new Map<string, string[]>()

  counter(name: string, help: string, value: number, labels: Labels = {}): void {
    this.#family(name, 'counter', help).push(sample(name, labels, value))
  }

  gauge(name: string, help: string, value: number, labels: Labels = {}): void {
    this.#family(name, 'gauge', help).push(sample(name, labels, value))
  }

  /** `counts` has one more element than there are bounds, of what is beyond. */
  histogram(
    name: string,
    help: string,
    of: { bounds: readonly number[]; counts: readonly number[]; sum: number },
    labels: Labels,
  ): void {
    const lines = this.#family(name, 'histogram', help)
    let total = 0
    for (const [index, count] of of.counts.entries()) {
      total += count
      lines.push(sample(`${name}_bucket`, { ...labels, le: String(of.bounds[index] ?? '+Inf') }, total))
    }
    lines.push(sample(`${name}_sum`, labels, of.sum), sample(`${name}_count`, labels, total))
  }

  toString(): string {
    return `${[...this.#families.values()].flat().join('\n')}\n`
  }

  #family(name: string, type: string, help: string): string[] {
    const known = this.#families.get(name)
    if (known !== undefined) return known
    const lines = [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`]
    this.#families.set(name, lines)
    return lines
  }
}

function sample(name: string, labels: Labels, value: number): string {
  const list = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`)
  return `${name}${list.length === 0 ? '' : `{${list.join(',')}}`} ${value}`
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

/** All that a daemon counts. docs/nydusd.md lists the names. */
export function prometheusText(daemon: Daemon): string {
  const to = new Exposition()
  aboutDaemon(to, daemon)
  for (const mount of daemon.mounts) {
    aboutFiles(to, daemon, mount)
    aboutCache(to, daemon, mount)
    aboutBackend(to, mount)
  }
  aboutProcess(to)
  return to.toString()
}

function aboutDaemon(to: Exposition, daemon: Daemon): void {
  const { package_ver: version, git_commit: commit } = versionInfo()
  to.gauge('nydusd_info', 'Version of the daemon; always 1.', 1, { version, commit, id: daemon.options.id ?? '' })
  to.gauge('nydusd_state', 'State of the daemon, in the label; always 1.', 1, { state: daemon.state })
  to.gauge('nydusd_mounts', 'Images and directories that are mounted.', daemon.mounts.length + daemon.shares.length)
  to.gauge('nydusd_fuse_threads', 'Threads that serve the kernel.', daemon.threads)
  const waiting = daemon.inflight()
  const first = Math.min(...waiting.map(({ sinceUnixMs }) => sinceUnixMs))
  to.gauge('nydusd_waiting_reads', 'Reads that wait for data now.', waiting.length)
  const seconds = waiting.length === 0 ? 0 : Math.max(0, Date.now() - first) / 1000
  to.gauge('nydusd_longest_wait_seconds', 'How long the first of them has waited.', seconds)
}

function aboutFiles(to: Exposition, daemon: Daemon, mount: Mount): void {
  const labels = { mountpoint: mount.path }
  const files = daemon.fileSystemMetrics(mount)
  for (const [operation, index] of Object.entries(FOP))
    for (const [result, counts] of [
      ['ok', files.fop_hits],
      ['error', files.fop_errors],
    ] as const)
      to.counter('nydusd_fs_operations_total', 'Requests of the kernel that were answered.', counts[index] ?? 0, {
        ...labels,
        operation: operation.toLowerCase(),
        result,
      })
  to.counter('nydusd_fs_read_bytes_total', 'Bytes that reads were answered with.', files.data_read, labels)
  to.histogram(
    'nydusd_fs_read_duration_seconds',
    'Time of reads that were answered with data.',
    {
      bounds: LATENCY_BOUNDS_US.map((us) => us / 1e6),
      counts: files.read_latency_dist,
      sum: (files.fop_cumulative_latency_total[FOP.Read] ?? 0) / 1e6,
    },
    labels,
  )
  to.histogram(
    'nydusd_fs_read_size_bytes',
    'Bytes of each read; failed ones have none.',
    { bounds: SIZE_BOUNDS.map((bytes) => bytes - 1), counts: files.block_count_read, sum: files.data_read },
    labels,
  )
}

function aboutCache(to: Exposition, daemon: Daemon, mount: Mount): void {
  const labels = { mountpoint: mount.path }
  const { hits, reads } = daemon.cacheHits(mount)
  for (const [result, count] of [
    ['hit', hits],
    ['miss', reads - hits],
  ] as const)
    to.counter('nydusd_cache_reads_total', 'Reads, by whether the cache answered them.', count, { ...labels, result })
  const { counters } = mount.image.reader
  for (const [name, help, value] of [
    ['nydusd_chunks_verified_total', 'Chunks whose digest was compared and fits.', counters.chunksVerified],
    ['nydusd_chunks_bad_total', 'Chunks with wrong bytes, of the backend or of the cache.', counters.badChunks],
    ['nydusd_chunks_uncached_total', 'Chunks that the cache could not keep.', counters.chunksUncached],
    ['nydusd_demand_requests_total', 'Requests to the backend for readers who wait.', counters.demandRequests],
    ['nydusd_demand_bytes_total', 'Bytes of those.', counters.demandBytes],
    ['nydusd_prefetch_requests_total', 'Requests to the backend ahead of readers.', counters.prefetchRequests],
    ['nydusd_prefetch_bytes_total', 'Bytes of those.', counters.prefetchBytes],
  ] as const)
    to.counter(name, help, value, labels)
}

function aboutBackend(to: Exposition, mount: Mount): void {
  const { metrics } = mount.image
  const labels = { mountpoint: mount.path, backend: metrics.backendType }
  for (const [result, count] of [
    ['ok', metrics.requests - metrics.errors],
    ['error', metrics.errors],
  ] as const)
    to.counter('nydusd_backend_requests_total', 'Reads of the backend, each try counted.', count, { ...labels, result })
  to.counter('nydusd_backend_requested_bytes_total', 'Bytes that they asked for.', metrics.bytesRequested, labels)
  to.counter('nydusd_backend_received_bytes_total', 'Bytes that came.', metrics.bytesReceived, labels)
  to.gauge('nydusd_backend_requests_in_flight', 'Reads of the backend under way.', metrics.inFlight, labels)
  const bySize = metrics.toJSON().read_latency_sizes_dist
  const counts = [...LATENCY_BUCKETS_MS, Number.POSITIVE_INFINITY].map((_bound, index) =>
    bySize.reduce((sum, row) => sum + (row[index] ?? 0), 0),
  )
  to.histogram(
    'nydusd_backend_request_duration_seconds',
    'Time of reads of the backend.',
    { bounds: LATENCY_BUCKETS_MS.map((ms) => ms / 1000), counts, sum: metrics.latencyMs / 1000 },
    labels,
  )
}

function aboutProcess(to: Exposition): void {
  const { user, system } = process.cpuUsage()
  to.counter('process_cpu_seconds_total', 'CPU time of the process.', (user + system) / 1e6)
  to.gauge('process_resident_memory_bytes', 'Memory of the process.', process.memoryUsage.rss())
  to.gauge('process_open_fds', 'Open file descriptors.', readdirSync('/proc/self/fd').length - 1) // without the one that reads them
  to.gauge('process_start_time_seconds', 'When the process started, Unix time.', performance.timeOrigin / 1000)
}
