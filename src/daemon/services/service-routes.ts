import { type Answer, NO_CONTENT, noCounter, refusal, type Wrapper } from '../api/answer.ts'
import { parseLogLevel } from '../api/bodies.ts'
import type { Call, Route } from '../api/routes.ts'
import { versionInfo } from '../version/index.ts'
import type { ServiceDaemon } from './service-daemon.ts'

const METHODS = ['GET', 'PUT', 'POST', 'DELETE'] as const

/** The API of a daemon that serves no file system: what speaks of one is answered with 501. docs/nydusd.md lists it. */
export const SERVICE_ROUTES: ReadonlyArray<Route<ServiceDaemon>> = [
  ...(['v1', 'v2'] as const).flatMap((version) => [
    route('GET', `/api/${version}/daemon`, 'none', 'DaemonInfo', showDaemon),
    route('PUT', `/api/${version}/daemon`, 'required', 'Configure', setLogLevel),
  ]),
  route('GET', '/api/v1/daemon/events', 'none', 'Events', ({ daemon }) => ({ status: 200, body: daemon.events })),
  route('PUT', '/api/v1/daemon/start', 'none', 'Configure', ({ daemon }) => {
    daemon.serve()
    return NO_CONTENT
  }),
  route('PUT', '/api/v1/daemon/exit', 'none', 'Configure', ({ exit }) => {
    exit()
    return NO_CONTENT
  }),
  unsupported('PUT', '/api/v1/daemon/fuse/sendfd', 'none', 'Upgrade'),
  unsupported('PUT', '/api/v1/daemon/fuse/takeover', 'none', 'Upgrade'),
  { ...unsupported('GET', '/api/v1/daemon/backend', 'none', 'FsBackendInfo'), needs: 'mountpoint' },
  ...METHODS.slice(1).map(
    (method): Route<ServiceDaemon> => ({
      ...unsupported(method, '/api/v1/mount', method === 'DELETE' ? 'none' : 'required', 'Mount'),
      needs: 'mountpoint',
    }),
  ),
  unsupported('GET', '/api/v1/metrics/inflight', 'none', 'InflightMetrics'),
  counted('/api/v1/metrics', 'GlobalMetrics'),
  counted('/api/v1/metrics/files', 'FsFilesMetrics'),
  counted('/api/v1/metrics/pattern', 'Pattern'),
  counted('/api/v1/metrics/backend', 'BackendMetrics'),
  counted('/api/v1/metrics/blobcache', 'BlobcacheMetrics'),
]

/** Those of the daemons that keep no registry of blobs. */
export const NO_BLOBS: ReadonlyArray<Route<ServiceDaemon>> = [
  unsupported('PUT', '/api/v2/blobs', 'required', 'CreateBlobObject'),
  unsupported('GET', '/api/v2/blobs', 'none', 'DeleteBlobObject'),
  unsupported('DELETE', '/api/v2/blobs', 'none', 'DeleteBlobObject'),
]

export function route(
  method: Route['method'],
  path: string,
  body: Route['body'],
  wrapper: Wrapper,
  handle: Route<ServiceDaemon>['handle'],
): Route<ServiceDaemon> {
  return { method, path, body, wrapper, handle }
}

export function unsupportedAnswer(wrapper: Wrapper): Answer {
  return refusal(501, `${wrapper}(DaemonAbnormal(Unsupported))`)
}

function unsupported(
  method: Route['method'],
  path: string,
  body: Route['body'],
  wrapper: Wrapper,
): Route<ServiceDaemon> {
  return route(method, path, body, wrapper, () => unsupportedAnswer(wrapper))
}

function counted(path: string, wrapper: Wrapper): Route<ServiceDaemon> {
  return route('GET', path, 'none', wrapper, (): Answer => noCounter(wrapper))
}

function showDaemon({ daemon: { options, state } }: Call<ServiceDaemon>): Answer {
  const { id = null, supervisor = null } = options
  return { status: 200, body: { version: versionInfo(), id, supervisor, state, backend_collection: null } }
}

function setLogLevel({ daemon, body }: Call<ServiceDaemon>): Answer {
  const level = parseLogLevel(body)
  if (level === undefined) return refusal(500, 'Configure(ResponsePayloadType)')
  daemon.options.log.level = level
  return NO_CONTENT
}
