import type { RecordedOfFiles } from './file-counters.ts'

/** File operations in the order of upstream's counters. */
export const FOP = {
  Getattr: 0,
  Readlink: 1,
  Read: 4,
  Getxattr: 6,
  Listxattr: 7,
  Lookup: 9,
  Readdir: 10,
  Readdirplus: 11,
} as const
export const FOP_COUNT = 15
export const BUCKETS = 8

/** Exclusive upper bounds of the size buckets, bytes, and inclusive ones of the latency buckets, microseconds; the last bucket is open. */
export const SIZE_BOUNDS: readonly number[] = [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 17, 1 << 19, 1 << 20]
export const LATENCY_BOUNDS_US: readonly number[] = [200, 1000, 20_000, 50_000, 500_000, 1_000_000, 2_000_000]

/** Where a counter stands in a slot's block of numbers. */
const AT = { bytes: 0, latencyUs: 1, hot: 2, hits: 8, errors: 24, sizes: 40, latencies: 48, size: 56 } as const
/** Mounts that a session can have, and slot 0, the pseudo file system. */
const SLOTS = 256

/** `GET /api/v1/metrics`, as upstream's clients read it. */
export interface FileSystemMetricsJson {
  readonly files_account_enabled: boolean
  readonly access_pattern_enabled: boolean
  readonly record_latest_read_files_enabled: boolean
  readonly measure_latency: true
  readonly id: string
  readonly nr_opens: 0
  readonly data_read: number
  readonly block_count_read: readonly number[]
  readonly fop_hits: readonly number[]
  readonly fop_errors: readonly number[]
  readonly fop_cumulative_latency_total: readonly number[]
  readonly read_latency_dist: readonly number[]
}

/**
 * Counters of all mounts as one thread sees them, in shared memory: that thread alone writes, any may read. A slot's counters
 * are cleared by {@link clear} before the slot is used again.
 */
export class FileSystemCounters {
  readonly numbers: Float64Array<SharedArrayBuffer>

  constructor(numbers = new Float64Array(new SharedArrayBuffer(8 * SLOTS * AT.size))) {
    this.numbers = numbers
  }

  hit(slot: number, fop: number): void {
    this.numbers[slot * AT.size + AT.hits + fop]++
  }

  error(slot: number, fop: number): void {
    this.numbers[slot * AT.size + AT.errors + fop]++
  }

  /** A read that was answered; `hot` = by the thread that read the request. */
  read(slot: number, bytes: number, latencyUs: number, hot: boolean): void {
    const base = slot * AT.size
    this.numbers[base + AT.hits + FOP.Read]++
    this.numbers[base + AT.sizes + sizeBucket(bytes)]++
    if (bytes === 0) return // nothing was measured: upstream counts these so
    this.numbers[base + AT.bytes] += bytes
    this.numbers[base + AT.latencyUs] += latencyUs
    this.numbers[base + AT.latencies + bucket(LATENCY_BOUNDS_US, latencyUs)]++
    if (hot) this.numbers[base + AT.hot]++
  }

  readFailed(slot: number): void {
    this.error(slot, FOP.Read)
    this.numbers[slot * AT.size + AT.sizes]++
  }

  /** Only while no thread answers for this slot. */
  clear(slot: number): void {
    this.numbers.fill(0, slot * AT.size, (slot + 1) * AT.size)
  }
}

export function sizeBucket(bytes: number): number {
  return bucket(SIZE_BOUNDS, bytes + 1)
}

function bucket(bounds: readonly number[], value: number): number {
  let index = 0
  while (index < bounds.length && value > bounds[index]) index++
  return index
}

/** Sums up what all threads counted for a slot. */
export class FileSystemMetrics {
  readonly #sum = new Float64Array(AT.size)

  constructor(of: readonly FileSystemCounters[], slot: number) {
    for (const { numbers } of of)
      for (let index = 0; index < AT.size; index++) this.#sum[index] += numbers[slot * AT.size + index]
  }

  /** Reads answered without the engine. */
  get hotReads(): number {
    return this.#sum[AT.hot]
  }
  get reads(): number {
    return this.#sum[AT.hits + FOP.Read] + this.#sum[AT.errors + FOP.Read]
  }

  json(id: string, recorded: RecordedOfFiles): FileSystemMetricsJson {
    const part = (at: number, count: number): number[] => [...this.#sum.subarray(at, at + count)]
    const latency = Array.from({ length: FOP_COUNT }, () => 0)
    latency[FOP.Read] = Math.round(this.#sum[AT.latencyUs])
    return {
      files_account_enabled: recorded.counts,
      access_pattern_enabled: recorded.pattern,
      record_latest_read_files_enabled: recorded.latest,
      measure_latency: true,
      id,
      nr_opens: 0,
      data_read: this.#sum[AT.bytes],
      block_count_read: part(AT.sizes, BUCKETS),
      fop_hits: part(AT.hits, FOP_COUNT),
      fop_errors: part(AT.errors, FOP_COUNT),
      fop_cumulative_latency_total: latency,
      read_latency_dist: part(AT.latencies, BUCKETS),
    }
  }
}
