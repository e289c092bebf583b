import { readFile } from 'node:fs/promises'
import * as v from 'valibot'
import { SnapshotterError } from '../errors.ts'
import type { DaemonStatus } from '../daemons/index.ts'
import type { ServedImages, ShownImages } from './daemons.ts'

export interface Answer {
  readonly status: number
  /** Told as JSON; without it the body is empty. */
  readonly body?: unknown
}

interface Call {
  readonly images: ServedImages
  /** Where the kernel shows any. */
  readonly kernelImages: ShownImages | undefined
  readonly body: string
  /** Of the path: what stands where the route has `{id}`. */
  readonly id: string
  readonly signal: AbortSignal
}

export interface Route {
  readonly method: 'GET' | 'PUT'
  readonly path: string
  readonly handle: (call: Call) => Promise<Answer> | Answer
}

/** The whole API. Source: docs/containerd-nydus-grpc.md, "System API". */
export const ROUTES: readonly Route[] = [
  { method: 'GET', path: '/api/v1/daemons', handle: describeDaemons },
  { method: 'GET', path: '/api/v1/daemons/records', handle: () => refusal(501, 'not implemented') },
  { method: 'PUT', path: '/api/v1/daemons/upgrade', handle: upgradeDaemons },
  { method: 'PUT', path: '/api/v1/prefetch', handle: setPrefetch },
  { method: 'GET', path: '/api/v1/daemons/{id}/backend', handle: showBackend },
  { method: 'GET', path: '/api/v1/erofs', handle: describeShown },
]

/** `code` is always this; programs read the message. */
export function refusal(status: number, message: string): Answer {
  return { status, body: { code: 'Unknown', message } }
}

const STATUS_OF: Readonly<Partial<Record<SnapshotterError['code'], number>>> = {
  NOT_FOUND: 404,
  INVALID_ARGUMENT: 400,
  BAD_CONFIG: 400,
}

export function failure(error: unknown): Answer {
  const message = error instanceof Error ? error.message : String(error)
  return refusal((error instanceof SnapshotterError ? STATUS_OF[error.code] : undefined) ?? 500, message)
}

const KIB = 1024

async function describeDaemons({ images, signal }: Call): Promise<Answer> {
  const counted = await images.metrics(signal).catch(() => []) // what was read is not known; all else is
  const bytesOf = new Map(
    counted.map(({ id, images: own }) => [id, own.reduce((sum, { files }) => sum + dataRead(files), 0)]),
  )
  return { status: 200, body: images.list().map((daemon) => daemonJson(daemon, bytesOf.get(daemon.id) ?? 0)) }
}

function dataRead(files: unknown): number {
  return typeof files === 'object' && files !== null && 'data_read' in files ? Number(files.data_read) || 0 : 0
}

function daemonJson(daemon: DaemonStatus, readBytes: number): Record<string, unknown> {
  return {
    id: daemon.id,
    pid: daemon.pid,
    api_socket: daemon.apiSocket,
    supervisor_path: daemon.supervisorPath,
    reference: daemon.reference,
    mountpoint: daemon.mountpoint,
    state: daemon.state,
    silence: daemon.silence,
    startup_cpu_utilization: daemon.startupCpuPercent,
    memory_rss_kb: daemon.memoryRssKib,
    read_data_kb: readBytes / KIB,
    instances: Object.fromEntries(
      daemon.instances.map(({ key, snapshotId, snapshotDirectory, mountpoint, reference }) => [
        key,
        { snapshot_id: snapshotId, snapshot_dir: snapshotDirectory, mountpoint, image_id: reference },
      ]),
    ),
  }
}

function describeShown({ kernelImages }: Call): Answer {
  const shown = kernelImages?.list() ?? []
  const body = shown.map(({ key, reference, mountpoint, bytes, blobs, users }) => ({
    instance: key,
    image_id: reference,
    mountpoint,
    image_bytes: bytes,
    blobs,
    snapshot_ids: users.map(String),
  }))
  return { status: 200, body }
}

const Upgrade = v.object({
  nydusd_path: v.pipe(v.string(), v.startsWith('/'), v.maxLength(4095)),
  version: v.optional(v.string()),
  policy: v.optional(v.string()),
})

async function upgradeDaemons({ images, body }: Call): Promise<Answer> {
  const request = v.safeParse(Upgrade, parsed(body))
  if (!request.success)
    return refusal(400, 'the body must be {"nydusd_path": "/path/of/the/new/nydusd"}, with an absolute path')
  await images.upgrade({ nydusdPath: request.output.nydusd_path })
  return { status: 200 }
}

const Prefetch = v.array(v.object({ image: v.pipe(v.string(), v.nonEmpty()), prefetch: v.string() }))

/** Upstream answers 200 to anything; here who sends nonsense is told. */
function setPrefetch({ images, body }: Call): Answer {
  const lists = v.safeParse(Prefetch, parsed(body))
  if (!lists.success)
    return refusal(400, 'the body must be [{"image": "registry.example/app:1", "prefetch": "/bin/sh,/etc"}, …]')
  for (const { image, prefetch } of lists.output) images.prefetchLists.put(image, prefetch)
  return { status: 200 }
}

const Config = v.object({ device: v.object({ backend: v.object({ type: v.string(), config: v.unknown() }) }) })

/** With logins: nydusd fetches them here, and only the owner may use the socket. */
async function showBackend({ images, id }: Call): Promise<Answer> {
  const file = images.list().some((daemon) => daemon.id === id) ? images.configOf(id) : undefined
  if (file === undefined)
    return refusal(404, `there is no daemon ${JSON.stringify(id.slice(0, 64))} with an image of its own`)
  const config = v.safeParse(Config, parsed(await readFile(file, 'utf8')))
  if (!config.success) return refusal(404, `the configuration of ${id} has no backend`)
  return { status: 200, body: config.output.device.backend }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // the check says what is wanted
  }
}
