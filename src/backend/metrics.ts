import type { Backend, BlobReader, ReadOptions } from './backend.ts'

/** Upper bounds (exclusive, bytes) of all size buckets but the last. They are nydusd's: clients label them. */
export const SIZE_BUCKETS: readonly number[] = [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 17, 1 << 19, 1 << 20]
/** Upper bounds (inclusive, milliseconds) of all latency buckets but the last. */
export const LATENCY_BUCKETS_MS: readonly number[] = [1, 20, 50, 100, 500, 1000, 2000]

const BUCKETS = 8

/** A backend's metrics as nydusd's API serves them (`GET /api/v1/metrics/backend`). Counts are of attempts, bytes of what was asked for, failed or not. */
export interface BackendMetricsJson {
  readonly backend_type: string
  readonly read_count: number
  readonly read_errors: number
  readonly read_amount_total: number
  readonly read_cumulative_latency_millis_total: number
  readonly read_cumulative_latency_millis_dist: readonly number[]
  readonly read_count_block_size_dist: readonly number[]
  readonly read_latency_sizes_dist: readonly (readonly number[])[]
}

/** Counters of one backend since it was made; they only grow, but for `inFlight`. */
export class BackendMetrics {
  readonly backendType: string
  requests = 0
  errors = 0
  /** Bytes that reads asked for. */
  bytesRequested = 0
  /** Bytes that arrived, of failed reads too as far as the driver told. */
  bytesReceived = 0
  latencyMs = 0
  inFlight = 0
  readonly #latencyBySize = zeros()
  readonly #countBySize = zeros()
  /** Size bucket → latency bucket → reads. */
  readonly #histogram = Array.from({ length: BUCKETS }, zeros)

  constructor(backendType: string) {
    this.backendType = backendType
  }

  /** Notes a finished read. */
  record(read: { bytesRequested: number; bytesReceived: number; latencyMs: number; failed: boolean }): void {
    const size = bucketOf(SIZE_BUCKETS, read.bytesRequested + 1) // exclusive bounds
    const latency = bucketOf(LATENCY_BUCKETS_MS, read.latencyMs)
    this.requests += 1
    if (read.failed) this.errors += 1
    this.bytesRequested += read.bytesRequested
    this.bytesReceived += read.bytesReceived
    this.latencyMs += read.latencyMs
    bump(this.#latencyBySize, size, read.latencyMs)
    bump(this.#countBySize, size, 1)
    const row = this.#histogram[size]
    if (row !== undefined) bump(row, latency, 1)
  }

  toJSON(): BackendMetricsJson {
    return {
      backend_type: this.backendType,
      read_count: this.requests,
      read_errors: this.errors,
      read_amount_total: this.bytesRequested,
      read_cumulative_latency_millis_total: Math.round(this.latencyMs),
      read_cumulative_latency_millis_dist: this.#latencyBySize.map(Math.round),
      read_count_block_size_dist: [...this.#countBySize],
      read_latency_sizes_dist: this.#histogram.map((row) => [...row]),
    }
  }
}

/** Counts each read into `metrics`. Put it inside of `withRetry` to count attempts, as nydusd does. Size questions are not counted. */
export function withMetrics(backend: Backend, metrics: BackendMetrics): Backend {
  return {
    name: backend.name,
    open: async (blobId) => new MeasuredReader(await backend.open(blobId), metrics),
    close: () => backend.close(),
  }
}

class MeasuredReader implements BlobReader {
  readonly #inner: BlobReader
  readonly #metrics: BackendMetrics

  constructor(inner: BlobReader, metrics: BackendMetrics) {
    this.#inner = inner
    this.#metrics = metrics
  }

  size(signal: AbortSignal): Promise<number> {
    return this.#inner.size(signal)
  }

  async read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    const from = performance.now()
    let bytesReceived = 0
    let failed = true
    const onFilled = (filled: number): void => {
      bytesReceived = filled
      options.onFilled?.(filled)
    }
    this.#metrics.inFlight += 1
    try {
      await this.#inner.read(compressedOffset, into, { ...options, onFilled })
      failed = false
      bytesReceived = into.length
    } finally {
      this.#metrics.inFlight -= 1
      const latencyMs = performance.now() - from
      this.#metrics.record({ bytesRequested: into.length, bytesReceived, latencyMs, failed })
    }
  }

  close(): Promise<void> {
    return this.#inner.close()
  }
}

function bucketOf(bounds: readonly number[], value: number): number {
  const found = bounds.findIndex((bound) => value <= bound)
  return found < 0 ? bounds.length : found
}

function bump(row: number[], index: number, by: number): void {
  row[index] = (row[index] ?? 0) + by
}

function zeros(): number[] {
  return Array.from({ length: BUCKETS }, () => 0)
}
