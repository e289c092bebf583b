/** What nydusd counts, as its API gives it. Of the original's, too: nothing is believed before it is looked at. Source: docs/nydusd.md, "Metrics". */
import * as v from 'valibot'
import type { DaemonMetrics } from '../daemons/index.ts'

const count = v.optional(v.pipe(v.number(), v.minValue(0)), 0)
const counts = v.optional(v.pipe(v.array(v.pipe(v.number(), v.minValue(0))), v.maxLength(64)), [])

const Files = v.object({
  data_read: count,
  fop_hits: counts,
  fop_errors: counts,
  block_count_read: counts,
  read_latency_dist: counts,
})

const Cache = v.object({
  partial_hits: count,
  whole_hits: count,
  total: count,
  entries_count: count,
  prefetch_data_amount: count,
  prefetch_requests_count: count,
  prefetch_workers: count,
  prefetch_unmerged_chunks: count,
  prefetch_cumulative_time_millis: count,
  prefetch_begin_time_secs: count,
  prefetch_begin_time_millis: count,
  prefetch_end_time_secs: count,
  prefetch_end_time_millis: count,
  buffered_backend_size: count,
})

const Inflight = v.array(v.object({ timestamp_secs: count }))

export type FilesJson = v.InferOutput<typeof Files>
export type CacheJson = v.InferOutput<typeof Cache>

/** Undefined is what could not be asked, or made no sense. */
export interface DaemonMetricsJson {
  readonly inflight: v.InferOutput<typeof Inflight>
  readonly images: ReadonlyArray<{
    readonly reference: string
    readonly files: FilesJson | undefined
    readonly cache: CacheJson | undefined
  }>
}

export function checkedMetrics({ inflight, images }: DaemonMetrics): DaemonMetricsJson {
  const reads = v.safeParse(Inflight, inflight)
  return {
    inflight: reads.success ? reads.output : [],
    images: images.map(({ reference, files, cache }) => {
      const ofFiles = v.safeParse(Files, files)
      const ofCache = v.safeParse(Cache, cache)
      return {
        reference,
        files: ofFiles.success ? ofFiles.output : undefined,
        cache: ofCache.success ? ofCache.output : undefined,
      }
    }),
  }
}
