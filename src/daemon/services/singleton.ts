import { type Answer, BAD_REQUEST, failureAnswer, NO_CONTENT } from '../api/answer.ts'
import type { Route } from '../api/routes.ts'
import { BodyError } from '../api/bodies.ts'
import { faultText, findFault } from '../api/json-text.ts'
import { DaemonError, messageOf } from '../errors.ts'
import type { Log } from '../log.ts'
import { readText } from '../run.ts'
import { parseBlobEntry } from './blob-entry.ts'
import { BlobRegistry } from './blob-registry.ts'
import { FsCache, type FsCachePlace } from './fscache.ts'
import { runService, type ServiceOptions } from './run-service.ts'
import { ServiceDaemon } from './service-daemon.ts'
import { NO_BLOBS, route, SERVICE_ROUTES, unsupportedAnswer } from './service-routes.ts'

export interface SingletonRunOptions extends ServiceOptions {
  /** A JSON file with `blobs`, an array of entries; undefined = none. */
  readonly config: string | undefined
  /** The kernel's cache of files that is to be filled; undefined = none. */
  readonly fscache: FsCachePlace | undefined
}

const DEVICE = '/dev/cachefiles'

/** `nydusd singleton`: a daemon that keeps a registry of blobs for drivers of the kernel, and fills the kernel's cache of files. As `runService`. */
export async function runSingleton(options: SingletonRunOptions): Promise<never> {
  const { id, supervisor, fscache } = options
  const registry = new BlobRegistry()
  const cache: { served: FsCache | undefined } = { served: undefined }
  return await runService(options, {
    at: fscache?.directory,
    routes: [...SERVICE_ROUTES, ...blobRoutes(registry, () => cache.served)],
    start: async (log) => {
      if (options.config !== undefined) await registerAll(registry, options.config, log)
      if (fscache !== undefined) cache.served = FsCache.start(DEVICE, fscache, registry, log)
      return new ServiceDaemon({ id, supervisor, log }, async () => await cache.served?.close())
    },
  })
}

/** The routes of a registry; docs/nydusd.md lists them. */
export function blobRoutes(
  registry: BlobRegistry,
  cache: () => Pick<FsCache, 'cull'> | undefined = () => undefined,
): ReadonlyArray<Route<ServiceDaemon>> {
  return [
    route('PUT', '/api/v2/blobs', 'required', 'CreateBlobObject', async ({ body }) => {
      await registry.add(parseBlobEntry(parseJson(body)))
      return NO_CONTENT
    }),
    ...NO_BLOBS.filter(({ method }) => method === 'GET'),
    route('DELETE', '/api/v2/blobs', 'none', 'DeleteBlobObject', ({ query }) => {
      const [domain, id] = [query.get('domain_id'), query.get('blob_id')]
      if (domain === null) return id === null ? BAD_REQUEST : cullAnswer(cache(), id)
      registry.remove(domain, id ?? '')
      return NO_CONTENT
    }),
  ]
}

/** What the kernel's cache keeps of a blob is removed. */
function cullAnswer(cache: Pick<FsCache, 'cull'> | undefined, blobId: string): Answer {
  if (cache === undefined) return unsupportedAnswer('DeleteBlobFile')
  try {
    cache.cull(blobId)
    return NO_CONTENT
  } catch (error) {
    return failureAnswer(error, 'DeleteBlobFile')
  }
}

async function registerAll(registry: BlobRegistry, path: string, log: Log): Promise<void> {
  const document = await readText(path, '--config')
  let value: unknown
  try {
    value = JSON.parse(document)
  } catch (error) {
    throw new DaemonError('BAD_CONFIG', `cannot use ${path}: ${messageOf(error)}`, { cause: error })
  }
  const blobs = typeof value === 'object' && value !== null && 'blobs' in value ? value.blobs : undefined
  if (!Array.isArray(blobs)) {
    log.warn(`${path} has no array "blobs": nothing is registered`)
    return
  }
  for (const [index, blob] of blobs.entries()) {
    try {
      await registry.add(parseBlobEntry(blob))
    } catch (error) {
      throw new DaemonError('BAD_CONFIG', `cannot register "blobs[${index}]" of ${path}: ${messageOf(error)}`, {
        cause: error,
      })
    }
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new BodyError(faultText(findFault(text)))
  }
}
