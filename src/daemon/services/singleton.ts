import { existsSync } from 'node:fs'
import { BAD_REQUEST, NO_CONTENT } from '../api/answer.ts'
import type { Route } from '../api/routes.ts'
import { BodyError } from '../api/bodies.ts'
import { faultText, findFault } from '../api/json-text.ts'
import { DaemonError, messageOf } from '../errors.ts'
import type { Log } from '../log.ts'
import { readText } from '../run.ts'
import { parseBlobEntry } from './blob-entry.ts'
import { BlobRegistry } from './blob-registry.ts'
import { runService, type ServiceOptions } from './run-service.ts'
import { ServiceDaemon } from './service-daemon.ts'
import { NO_BLOBS, route, SERVICE_ROUTES, unsupportedAnswer } from './service-routes.ts'

export interface SingletonRunOptions extends ServiceOptions {
  /** A JSON file with `blobs`, an array of entries; undefined = none. */
  readonly config: string | undefined
  /** Directory for the kernel's cache of files; undefined = it is not served. */
  readonly fscache: string | undefined
}

const DEVICE = '/dev/cachefiles'

/** `nydusd singleton`: a daemon that keeps a registry of blobs for drivers of the kernel. As `runService`. */
export async function runSingleton(options: SingletonRunOptions): Promise<never> {
  const { id, supervisor, fscache } = options
  if (fscache !== undefined)
    throw new DaemonError(
      'UNSUPPORTED',
      existsSync(DEVICE)
        ? 'nydusd does not serve the cachefiles of the kernel (--fscache); mount by FUSE: nydusd --mountpoint DIRECTORY'
        : `cannot serve --fscache: there is no ${DEVICE}; the kernel lacks cachefiles on demand (Linux 5.19 to 6.11 with CONFIG_CACHEFILES_ONDEMAND), so mount by FUSE: nydusd --mountpoint DIRECTORY`,
    )
  const registry = new BlobRegistry()
  return await runService(options, {
    at: undefined,
    routes: [...SERVICE_ROUTES, ...blobRoutes(registry)],
    start: async (log) => {
      if (options.config !== undefined) await registerAll(registry, options.config, log)
      return new ServiceDaemon({ id, supervisor, log }, () => Promise.resolve())
    },
  })
}

/** The routes of a registry; docs/nydusd.md lists them. */
export function blobRoutes(registry: BlobRegistry): ReadonlyArray<Route<ServiceDaemon>> {
  return [
    route('PUT', '/api/v2/blobs', 'required', 'CreateBlobObject', async ({ body }) => {
      await registry.add(parseBlobEntry(parseJson(body)))
      return NO_CONTENT
    }),
    ...NO_BLOBS.filter(({ method }) => method === 'GET'),
    route('DELETE', '/api/v2/blobs', 'none', 'DeleteBlobObject', ({ query }) => {
      const [domain, id] = [query.get('domain_id'), query.get('blob_id')]
      if (domain !== null) {
        registry.remove(domain, id ?? '')
        return NO_CONTENT
      }
      // What the kernel's cache keeps of a blob, which nydusd does not serve.
      return id === null ? BAD_REQUEST : unsupportedAnswer('DeleteBlobFile')
    }),
  ]
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
