import { isLoginUsable, LOGIN_KEYS } from '../live-login.ts'
import type { Daemon } from '../daemon.ts'
import { DaemonError } from '../errors.ts'
import type { Mount } from '../mount-opener.ts'
import { versionInfo } from '../version/index.ts'
import { type Answer, BAD_REQUEST, NO_CONTENT, noCounter, refusal, type Wrapper } from './answer.ts'
import { parseLogLevel, parseMountRequest, parseStrings } from './bodies.ts'
import { PROMETHEUS_TYPE, prometheusText } from './prometheus.ts'
import { superblockJson } from './superblock.ts'

/** What a handler works with. */
export interface Call<D = Daemon> {
  readonly daemon: D
  readonly query: URLSearchParams
  /** Empty where the route takes none. */
  readonly body: string
  /** Ends the process after the answer is out. */
  readonly exit: () => void
}

export interface Route<D = Daemon> {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE'
  readonly path: string
  readonly body: 'none' | 'required'
  /** A query key without which the route answers 400. */
  readonly needs?: 'mountpoint'
  readonly wrapper: Wrapper
  readonly handle: (call: Call<D>) => Answer | Promise<Answer>
}

/** The whole API; docs/nydusd.md lists the same. */
export const ROUTES: readonly Route[] = [
  get('/api/v1/daemon', 'DaemonInfo', ({ daemon }) =>
    ok({ ...daemonInfo(daemon), backend_collection: collection(daemon) }),
  ),
  put('/api/v1/daemon', 'Configure', 'required', setLogLevel),
  { ...get('/api/v1/daemon/backend', 'FsBackendInfo', showSuperblock), needs: 'mountpoint' },
  get('/api/v1/daemon/events', 'Events', ({ daemon }) => ok(daemon.events)),
  put('/api/v1/daemon/start', 'Configure', 'none', async ({ daemon }) => {
    await daemon.serve()
    return NO_CONTENT
  }),
  put('/api/v1/daemon/exit', 'Configure', 'none', ({ exit }) => {
    exit()
    return NO_CONTENT
  }),
  put('/api/v1/daemon/fuse/sendfd', 'Upgrade', 'none', async ({ daemon }) => {
    await daemon.sendState()
    return NO_CONTENT
  }),
  put('/api/v1/daemon/fuse/takeover', 'Upgrade', 'none', async ({ daemon }) => {
    await daemon.takeOver()
    return NO_CONTENT
  }),
  { method: 'POST', path: '/api/v1/mount', body: 'required', needs: 'mountpoint', wrapper: 'Mount', handle: mount },
  { method: 'PUT', path: '/api/v1/mount', body: 'required', needs: 'mountpoint', wrapper: 'Mount', handle: remount },
  { method: 'DELETE', path: '/api/v1/mount', body: 'none', needs: 'mountpoint', wrapper: 'Mount', handle: unmount },
  get(
    '/api/v1/metrics',
    'GlobalMetrics',
    metric('GlobalMetrics', (daemon, of) => daemon.fileSystemMetrics(of)),
  ),
  get('/api/v1/metrics/files', 'FsFilesMetrics', (call) =>
    metric('FsFilesMetrics', (daemon, of) => {
      const files = daemon.fileMetrics(of)
      return call.query.get('latest') === 'true' ? (files?.takeLatest() ?? []) : (files?.files() ?? {})
    })(call),
  ),
  get(
    '/api/v1/metrics/pattern',
    'Pattern',
    metric('Pattern', (daemon, of) => daemon.fileMetrics(of)?.pattern() ?? []),
  ),
  get(
    '/api/v1/metrics/backend',
    'BackendMetrics',
    metric('BackendMetrics', (daemon, of) => daemon.backendMetrics(of)),
  ),
  get('/api/v1/metrics/blobcache', 'BlobcacheMetrics', cacheMetrics),
  get('/api/v1/metrics/inflight', 'InflightMetrics', inflight),
  get('/metrics', 'GlobalMetrics', ({ daemon }) => ({
    status: 200,
    text: { type: PROMETHEUS_TYPE, content: prometheusText(daemon) },
  })),
  get('/api/v1/config', 'Configure', showDynamic),
  put('/api/v1/config', 'Configure', 'required', setDynamic),
  get('/api/v2/daemon', 'DaemonInfo', ({ daemon }) => ok({ ...daemonInfo(daemon), backend_collection: null })),
  put('/api/v2/daemon', 'Configure', 'required', setLogLevel),
  put('/api/v2/blobs', 'CreateBlobObject', 'required', () =>
    refusal(501, 'CreateBlobObject(DaemonAbnormal(Unsupported))'),
  ),
  get('/api/v2/blobs', 'DeleteBlobObject', ({ query }) =>
    query.has('domain_id') ? refusal(501, 'DeleteBlobObject(DaemonAbnormal(Unsupported))') : BAD_REQUEST,
  ),
  {
    method: 'DELETE',
    path: '/api/v2/blobs',
    body: 'none',
    wrapper: 'DeleteBlobObject',
    handle: ({ query }) => {
      if (query.has('domain_id')) return refusal(501, 'DeleteBlobObject(DaemonAbnormal(Unsupported))')
      return query.has('blob_id') ? NO_CONTENT : BAD_REQUEST
    },
  },
]

function get(path: string, wrapper: Wrapper, handle: Route['handle']): Route {
  return { method: 'GET', path, body: 'none', wrapper, handle }
}

function put(path: string, wrapper: Wrapper, body: Route['body'], handle: Route['handle']): Route {
  return { method: 'PUT', path, body, wrapper, handle }
}

function ok(body: unknown): Answer {
  return { status: 200, body }
}

function daemonInfo({ options, state }: Daemon): Record<string, unknown> {
  return { version: versionInfo(), id: options.id ?? null, supervisor: options.supervisor ?? null, state }
}

function collection(daemon: Daemon): Record<string, unknown> {
  const described = (type: string, { path, mountedAt }: Pick<Mount, 'path' | 'mountedAt'>, config: unknown) => ({
    backend_type: type,
    mountpoint: path,
    mounted_time: timeText(mountedAt),
    config,
  })
  return Object.fromEntries([
    ...daemon.mounts.map((mount) => [mount.path, described('Rafs', mount, daemon.shownConfig(mount))]),
    ...daemon.shares.map((share) => [share.path, described('PassthroughFs', share, null)]),
  ])
}

/** As upstream writes a time: without the zeros that end the fraction. */
function timeText(at: Date): string {
  const [day = '', time = ''] = at.toISOString().split('T')
  return `${day} ${time.replace(/(\.\d+?)0*Z$/, '$1')} +00:00:00`
}

function setLogLevel({ daemon, body }: Call): Answer {
  const level = parseLogLevel(body)
  if (level === undefined) return refusal(500, 'Configure(ResponsePayloadType)')
  daemon.options.log.level = level
  return NO_CONTENT
}

function pathOf(query: URLSearchParams): string {
  return query.get('mountpoint') ?? ''
}

async function mount({ daemon, query, body }: Call): Promise<Answer> {
  await daemon.mount(pathOf(query), parseMountRequest(body))
  return NO_CONTENT
}

async function remount({ daemon, query, body }: Call): Promise<Answer> {
  await daemon.remount(pathOf(query), parseMountRequest(body))
  return NO_CONTENT
}

async function unmount({ daemon, query }: Call): Promise<Answer> {
  await daemon.unmount(pathOf(query))
  return NO_CONTENT
}

function showSuperblock({ daemon, query }: Call): Answer {
  const found = daemon.mounts.find(({ path }) => path === pathOf(query))
  if (found === undefined)
    throw new DaemonError('NOT_FOUND', `nothing is mounted at ${pathOf(query)}`, {
      wire: "object or filesystem doesn't exist",
    })
  if (found.image.settings.overlay !== undefined)
    throw new DaemonError('UNSUPPORTED', `${found.path} has an overlay`, {
      wire: 'filesystem type mismatch, expect RAFS',
    })
  return ok(superblockJson(found.image.loaded))
}

/** A metric of the mount that `id` names; without an id, of the only one. */
function metric(wrapper: Wrapper, of: (daemon: Daemon, mount: Mount) => unknown): Route['handle'] {
  return ({ daemon, query }) => {
    const id = query.get('id')
    const found = id === null ? onlyOf(daemon.mounts) : daemon.mounts.find(({ path }) => path === id)
    return found === undefined ? noCounter(wrapper) : ok(of(daemon, found))
  }
}

function onlyOf(mounts: readonly Mount[]): Mount | undefined {
  return mounts.length === 1 ? mounts[0] : undefined
}

/** Caches go by the `id` of their configuration; of those with the same one, the last mounted counts. */
function cacheMetrics({ daemon, query }: Call): Answer {
  const byId = new Map<string, Mount>()
  const inOrder = [...daemon.mounts].sort((a, b) => a.mountedAt.getTime() - b.mountedAt.getTime())
  for (const mounted of inOrder) byId.set(mounted.image.request.config.id, mounted)
  const id = query.get('id')
  const found = id === null ? onlyOf([...byId.values()]) : byId.get(id)
  return found === undefined ? noCounter('BlobcacheMetrics') : ok(daemon.cacheMetrics(found))
}

/** Node ids have their slot in the top byte and are beyond what a JavaScript number holds: they are written digit by digit. */
function inflight({ daemon }: Call): Answer {
  const waiting = daemon.inflight()
  if (waiting.length === 0) return NO_CONTENT
  const READ = 15
  return ok(
    waiting.map(({ read, sinceUnixMs }) => ({
      inode: rawNumber((BigInt(read.slot) << 56n) + BigInt(read.ino)),
      opcode: READ,
      unique: rawNumber((BigInt(read.high) << 32n) + BigInt(read.low)),
      timestamp_secs: Math.floor(sinceUnixMs / 1000),
    })),
  )
}

function rawNumber(value: bigint): unknown {
  return (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON(String(value)) // in Node 24, not yet in the language's types
}

const DYNAMIC_KEYS: ReadonlySet<string> = new Set([...LOGIN_KEYS, 'dragonfly_scheduler_endpoint', 'proxy_url'])
const HIDDEN = '******'

/**
 * A login is told to whoever asks for one mount's settings, since upstream's clients read back what they have set (and only the owner may use the socket). Of all mounts together only is told
 * that there is one, and login words in URLs are left out always.
 */
function showDynamic({ daemon, query }: Call): Answer {
  const id = query.get('id')
  const prefix = id === null ? '' : `${id}:`
  return ok(
    Object.fromEntries(
      [...daemon.dynamic].flatMap(([key, value]) => {
        if (!key.startsWith(prefix)) return []
        return [[key.slice(prefix.length), shownSetting(key, value, id !== null)]]
      }),
    ),
  )
}

function shownSetting(key: string, value: string, isOfOneMount: boolean): string {
  if (LOGIN_KEYS.some((login) => key.endsWith(`:${login}`))) return isOfOneMount ? value : HIDDEN
  return value.replace(/\/\/[^/@]*@/, '//')
}

async function setDynamic({ daemon, query, body }: Call): Promise<Answer> {
  for (const [key, value] of parseStrings(body)) {
    if (!DYNAMIC_KEYS.has(key) || !isLoginUsable(key, value)) return refusal(500, 'Configure(ResponsePayloadType)')
    daemon.setDynamic(query.get('id') ?? '', key, value)
  }
  await daemon.options.onChange?.()
  return NO_CONTENT
}
