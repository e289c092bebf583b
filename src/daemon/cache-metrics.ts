import type { MountedImage } from './image.ts'

/** What upstream's `metrics/blobcache` tells of an image; what is not counted here stays 0. */
export function cacheMetricsJson(
  { settings, loaded, reader }: MountedImage,
  { hits, reads }: { readonly hits: number; readonly reads: number },
): Record<string, unknown> {
  const { counters } = reader
  return {
    underlying_files: loaded.bootstrap.blobs.map(({ id }) => `${id}.blob.data`),
    store_path: settings.cacheDirectory ?? '',
    partial_hits: hits,
    whole_hits: 0,
    total: reads,
    entries_count: counters.chunksVerified,
    prefetch_data_amount: counters.prefetchBytes,
    prefetch_requests_count: counters.prefetchRequests,
    prefetch_workers: settings.prefetch.enabled ? settings.prefetch.requests : 0,
    prefetch_unmerged_chunks: counters.prefetchChunks,
    prefetch_cumulative_time_millis: counters.prefetchMs,
    prefetch_begin_time_secs: Math.floor(counters.prefetchBeganAt / 1000),
    prefetch_begin_time_millis: counters.prefetchBeganAt % 1000,
    prefetch_end_time_secs: Math.floor(counters.prefetchEndedAt / 1000),
    prefetch_end_time_millis: counters.prefetchEndedAt % 1000,
    buffered_backend_size: 0,
    data_all_ready: false,
  }
}
