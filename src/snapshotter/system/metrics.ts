import type { DaemonMetricsJson, FilesJson, CacheJson } from './daemon-json.ts'
import { type Histogram, type Numbers, Registry } from './exposition.ts'

/** What containerd asks for that is timed. */
export type TimedOperation = 'PREPARE' | 'MOUNTS' | 'REMOVE' | 'CLEANUP'
export type DaemonEventName = 'RUNNING' | 'DIED' | 'DESTROYED' | 'HUNG'

/** A gauge about a daemon or an image is gone when nothing was heard of it for so long. */
const TTL_MS = 180_000
const OPERATION_BOUNDS_MS = [0.5, 1, 5, 10, 50, 100, 150, 200, 250, 300, 350, 400, 600, 1000]
/** Upstream's bounds, also for the original's counters: the buckets of both are as many. */
const READ_SIZE_BOUNDS = [1, 4, 16, 64, 128, 512, 1024, 2048]
const LATENCY_BOUNDS = [1, 20, 50, 100, 500, 1000, 2000, 4000]
/** Where reads stand in nydusd's list of operations. */
const READ = 4

const CACHE_GAUGES = {
  partial_hits: ['partial_hits', 'Reads that needed a part of a chunk, answered from the cache.'],
  whole_hits: ['whole_hits', 'Reads that needed a whole chunk, answered from the cache.'],
  total: ['total_requests', 'Reads of the cache.'],
  entries_count: ['entries_count', 'Chunks that are ready.'],
  prefetch_data_amount: ['prefetch_data_bytes', 'Bytes fetched ahead.'],
  prefetch_requests_count: ['prefetch_requests_count', 'Requests that fetched ahead.'],
  prefetch_workers: ['prefetch_workers', 'Workers that fetch ahead.'],
  prefetch_unmerged_chunks: ['prefetch_unmerged_chunks', 'Chunks fetched ahead, each counted.'],
  prefetch_cumulative_time_millis: [
    'prefetch_cumulative_time_millis',
    'Time of all requests that fetched ahead, added up, in milliseconds.',
  ],
  buffered_backend_size: ['buffered_backend_size', 'Bytes of the backend that are buffered.'],
} as const satisfies Partial<Record<keyof CacheJson, readonly [string, string]>>

/** Every number that the snapshotter tells, with upstream's names. Source: docs/containerd-nydus-grpc.md, "Metrics". */
export class SnapshotterMetrics {
  readonly registry: Registry
  readonly events: Numbers
  readonly counts: Numbers
  readonly silent: Numbers
  readonly rss: Numbers
  readonly imageInfo: Numbers
  readonly hungIo: Numbers
  readonly cacheUsage: Numbers
  readonly cpuPercent: Numbers
  readonly memory: Numbers
  readonly cpuSystem: Numbers
  readonly cpuUser: Numbers
  readonly fds: Numbers
  readonly runTime: Numbers
  readonly threads: Numbers
  readonly blobsDeleted: Numbers
  readonly blobErrors: Numbers
  readonly blobsInUse: Numbers
  readonly erofsMounts: Numbers
  readonly erofsUsers: Numbers
  readonly renewals: Numbers
  readonly credentials: Numbers
  readonly #operations: Histogram
  readonly #readBytes: Numbers
  readonly #readHits: Numbers
  readonly #readErrors: Numbers
  readonly #readSizes: Histogram
  readonly #readLatency: Histogram
  readonly #cache = new Map<keyof CacheJson, Numbers>()
  readonly #prefetchDuration: Numbers

  constructor(registry = new Registry()) {
    this.registry = registry
    const image = ['image_ref']
    const gauge = (name: string, help: string): Numbers => registry.gauge(`snapshotter_${name}`, help)
    const ofImage = (name: string, help: string): Numbers => registry.gauge(`nydusd_${name}`, help, image, TTL_MS)
    this.events = registry.counter('nydusd_lifetime_event_counts', 'What became of nydusds.', ['nydusd_event'])
    this.counts = registry.gauge('nydusd_counts', 'Running nydusds.', ['version'])
    this.silent = registry.gauge('nydusd_silent_counts', 'Running nydusds that do not answer.')
    this.rss = registry.gauge('nydusd_rss_kilobytes', 'Resident memory of a nydusd.', ['daemon_id'], TTL_MS)
    this.imageInfo = registry.gauge('nydusd_image_info', 'Which nydusd serves which image; always 1.', [
      'daemon_id',
      ...image,
    ])
    this.hungIo = registry.gauge('nydusd_hung_io_counts', 'Reads that wait longer than hung_io_interval.')
    this.#readBytes = ofImage('total_read_bytes', 'Bytes read from the image.')
    this.#readHits = ofImage('read_hits', 'Reads that succeeded.')
    this.#readErrors = ofImage('read_errors', 'Reads that failed.')
    this.#readSizes = registry.histogram(
      'nydusd_cumulative_read_block_bytes',
      'Sizes of reads.',
      image,
      READ_SIZE_BOUNDS,
    )
    this.#readLatency = registry.histogram('nydusd_read_latency_microseconds', 'Times of reads.', image, LATENCY_BOUNDS)
    for (const [key, [name, help]] of Object.entries(CACHE_GAUGES))
      this.#cache.set(key as keyof CacheJson, ofImage(`cache_${name}`, help))
    this.#prefetchDuration = ofImage(
      'cache_prefetch_duration_millis',
      'From the first fetch ahead to the last, in milliseconds.',
    )
    this.#operations = registry.histogram(
      'snapshotter_snapshot_operation_elapsed_milliseconds',
      'Times of what containerd asked for.',
      ['snapshot_operation'],
      OPERATION_BOUNDS_MS,
    )
    this.cacheUsage = gauge('cache_usage_kilobytes', 'What the cache takes on the disk.')
    this.cpuPercent = gauge('cpu_usage_percentage', 'Use of processors of the snapshotter since it was asked last.')
    this.memory = gauge('memory_usage_kilobytes', 'Resident memory of the snapshotter.')
    this.cpuSystem = gauge('cpu_system_time_seconds', 'Processor time in the kernel since it was asked last.')
    this.cpuUser = gauge('cpu_user_time_seconds', 'Processor time of its own since it was asked last.')
    this.fds = gauge('fd_counts', 'Open descriptors of the snapshotter.')
    this.runTime = gauge('run_time_seconds', 'Time since the snapshotter started.')
    this.threads = gauge('thread_counts', 'Threads of the snapshotter.')
    this.blobsDeleted = registry.counter('snapshotter_cache_blobs_deleted_total', 'Blobs removed from the cache.')
    this.blobErrors = registry.counter(
      'snapshotter_cache_blob_deletion_errors_total',
      'Blobs that could not be removed from the cache.',
    )
    this.blobsInUse = gauge('cache_blobs_in_use', 'Blobs of the cache that are in use.')
    this.erofsMounts = gauge('erofs_mounts', 'Images that the kernel shows from the cache, without nydusd.')
    this.erofsUsers = gauge('erofs_users', 'Snapshots that show such an image.')
    this.renewals = registry.counter('snapshotter_credential_renewals_total', 'Credentials that were asked for anew.', [
      ...image,
      'result',
    ])
    this.credentials = registry.gauge('snapshotter_credential_store_entries', 'Credentials that are kept.', image)
  }

  operation(name: TimedOperation, elapsedMs: number): void {
    this.#operations.observe(elapsedMs, name)
  }

  daemonEvent(name: DaemonEventName): void {
    this.events.add(1, name)
  }

  /** What all running daemons count now. */
  takeReads(daemons: readonly DaemonMetricsJson[]): void {
    // Images that are gone take their distributions with them.
    this.#readSizes.clear()
    this.#readLatency.clear()
    for (const { images } of daemons)
      for (const { reference, files, cache } of images) {
        if (files !== undefined) this.#takeFiles(reference, files)
        if (cache !== undefined) this.#takeCache(reference, cache)
      }
  }

  #takeFiles(reference: string, files: FilesJson): void {
    this.#readBytes.set(files.data_read, reference)
    this.#readHits.set(files.fop_hits[READ] ?? 0, reference)
    this.#readErrors.set(files.fop_errors[READ] ?? 0, reference)
    this.#readSizes.set(distribution(files.block_count_read, READ_SIZE_BOUNDS), reference)
    this.#readLatency.set(distribution(files.read_latency_dist, LATENCY_BOUNDS), reference)
  }

  #takeCache(reference: string, cache: CacheJson): void {
    for (const [key, gauge] of this.#cache) gauge.set(cache[key], reference)
    const began = cache.prefetch_begin_time_secs * 1000 + cache.prefetch_begin_time_millis
    const ended = cache.prefetch_end_time_secs * 1000 + cache.prefetch_end_time_millis
    this.#prefetchDuration.set(Math.max(0, ended - began), reference)
  }
}

/** nydusd tells counts without sums: each is taken for as large as its bound, as upstream does. */
function distribution(
  counts: readonly number[],
  bounds: readonly number[],
): { counts: readonly number[]; sum: number } {
  return { counts, sum: bounds.reduce((sum, bound, index) => sum + bound * (counts[index] ?? 0), 0) }
}
