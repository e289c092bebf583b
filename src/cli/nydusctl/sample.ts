import { ClientError, type NydusdClient } from './client.ts'
import { count, counts, isObject, type Json, member } from './json.ts'

/** What one mount has done since it was mounted. Bytes, numbers of reads and of requests. */
export interface MountSample {
  readonly mountpoint: string
  /** `Rafs`, `PassthroughFs`. */
  readonly type: string
  readonly reads: number
  readonly readErrors: number
  readonly readBytes: number
  /** Reads that took more than 50 ms. */
  readonly slowReads: number
  /** Reads that the cache was asked for, and those of them that it answered; undefined where the cache cannot be told apart from another mount's. */
  readonly cache: { readonly reads: number; readonly hits: number } | undefined
  readonly backend:
    | { readonly type: string; readonly requests: number; readonly errors: number; readonly bytes: number }
    | undefined
}

/** A read that waits for data now. */
export interface WaitingRead {
  readonly sinceUnixSeconds: number
}

/** What a daemon does and has done, at one time. */
export interface Sample {
  readonly atUnixMs: number
  readonly version: string
  readonly state: string
  readonly mounts: readonly MountSample[]
  readonly waiting: readonly WaitingRead[]
}

/** Latency buckets of the file system beyond 50 ms. */
const FIRST_SLOW_BUCKET = 4
const READ = 4
/** Longer than a look may take: then the daemon is said not to answer. */
const DEADLINE_MS = 5_000

/** Looks at a daemon, ours or the original's. Throws ClientError. */
export async function takeSample(client: NydusdClient): Promise<Sample> {
  const info = await client.get('v1/daemon', {}, DEADLINE_MS)
  const inflight = await client.get('v1/metrics/inflight', {}, DEADLINE_MS)
  const collection = member(info, 'backend_collection')
  const mounts = isObject(collection) ? Object.entries(collection) : []
  const ids = mounts.map(([, mount]) => configId(mount))
  const samples: MountSample[] = []
  for (const [mountpoint, mount] of mounts)
    samples.push(await mountSample(client, mountpoint, mount, ids.filter((id) => id === configId(mount)).length === 1))
  return {
    atUnixMs: Date.now(),
    version: textOf(member(info, 'version', 'package_ver')),
    state: textOf(member(info, 'state')),
    mounts: samples,
    waiting: (Array.isArray(inflight) ? inflight : []).map((read: Json) => ({
      sinceUnixSeconds: count(read, 'timestamp_secs'),
    })),
  }
}

async function mountSample(
  client: NydusdClient,
  mountpoint: string,
  mount: Json,
  hasOwnCacheId: boolean,
): Promise<MountSample> {
  const files = await metric(client, 'v1/metrics', mountpoint)
  const backend = await metric(client, 'v1/metrics/backend', mountpoint)
  const cache = hasOwnCacheId ? await metric(client, 'v1/metrics/blobcache', configId(mount)) : null
  const slow = counts(files, 'read_latency_dist').slice(FIRST_SLOW_BUCKET)
  const errors = counts(files, 'fop_errors')[READ] ?? 0
  const total = count(cache, 'total')
  return {
    mountpoint,
    type: textOf(member(mount, 'backend_type')),
    reads: (counts(files, 'fop_hits')[READ] ?? 0) + errors,
    readErrors: errors,
    readBytes: count(files, 'data_read'),
    slowReads: slow.reduce((sum, reads) => sum + reads, 0),
    cache:
      cache === null
        ? undefined
        : { reads: total, hits: Math.min(total, count(cache, 'partial_hits') + count(cache, 'whole_hits')) },
    backend:
      backend === null
        ? undefined
        : {
            type: textOf(member(backend, 'backend_type')),
            requests: count(backend, 'read_count'),
            errors: count(backend, 'read_errors'),
            bytes: count(backend, 'read_amount_total'),
          },
  }
}

/** Null where there is no such counter: a mount of a directory, or one that has just gone. */
async function metric(client: NydusdClient, path: string, id: string): Promise<Json> {
  try {
    return await client.get(path, { id }, DEADLINE_MS)
  } catch (error) {
    if (error instanceof ClientError && error.status === 404) return null
    throw error
  }
}

function configId(mount: Json): string {
  return textOf(member(mount, 'config', 'id'))
}

function textOf(value: Json): string {
  return typeof value === 'string' ? value : ''
}
