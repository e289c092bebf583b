import * as v from 'valibot'
import type { Nydusd } from './daemon.ts'
import { memoryKib } from './processes.ts'

/** A daemon, as the system API and metrics show it. */
export interface DaemonStatus {
  readonly id: string
  readonly pid: number
  readonly mode: string
  readonly state: Nydusd['state']
  /** What of it has not answered for long, for people; '' when it answers. */
  readonly silence: string
  /** Of nydusd, as it says itself; '' before it did. */
  readonly version: string
  readonly apiSocket: string
  readonly supervisorPath: string
  /** Users: its images, and for a shared daemon the snapshotter itself. */
  readonly reference: number
  readonly mountpoint: string
  readonly startupCpuPercent: number
  readonly memoryRssKib: number
  readonly instances: readonly InstanceStatus[]
}

export interface InstanceStatus {
  readonly key: string
  readonly snapshotId: string
  readonly snapshotDirectory: string
  readonly mountpoint: string
  readonly reference: string
  readonly isMounted: boolean
}

export function statusOf(daemon: Nydusd): DaemonStatus {
  const { record, images, isShared } = daemon
  return {
    id: daemon.id,
    pid: record.ProcessID,
    mode: record.DaemonMode,
    state: daemon.state,
    silence: daemon.silence,
    version: daemon.version.packageVersion,
    apiSocket: record.APISocket,
    supervisorPath: record.SupervisorPath,
    reference: images.size + (isShared ? 1 : 0),
    mountpoint: record.Mountpoint,
    startupCpuPercent: daemon.startupCpuPercent,
    memoryRssKib: memoryKib(record.ProcessID),
    instances: [...images.values()].map(({ record: image, isMounted }) => ({
      key: image.SnapshotID,
      snapshotId: image.SnapshotID,
      snapshotDirectory: image.SnapshotDir,
      mountpoint: image.Mountpoint,
      reference: image.ImageID,
      isMounted,
    })),
  }
}

/** What daemons count, as their API gives it; what could not be asked is undefined. Shapes: docs/nydusd.md, "Metrics". */
export interface DaemonMetrics {
  readonly id: string
  /** Requests that are under way. */
  readonly inflight: unknown
  readonly images: ReadonlyArray<{
    readonly key: string
    readonly reference: string
    readonly files: unknown
    readonly cache: unknown
  }>
}

export async function metricsOf(daemon: Nydusd, signal: AbortSignal): Promise<DaemonMetrics> {
  const { api } = daemon
  const ask = async (kind: '' | '/blobcache' | '/inflight', id?: string): Promise<unknown> =>
    await api.metrics(kind, id, signal).catch(() => undefined) // it is dying, or busy: there is a next time
  const images: Array<DaemonMetrics['images'][number]> = []
  // one after another: the original answers one at a time anyway, and refuses more than 256 connections
  for (const { record, isMounted } of daemon.images.values()) {
    const { SnapshotID: key, ImageID: reference } = record
    const id = idOf(daemon, key)
    if (isMounted) images.push({ key, reference, files: await ask('', id), cache: await ask('/blobcache', id) })
  }
  return { id: daemon.id, inflight: await ask('/inflight'), images }
}

const BACKEND = v.object({ read_amount_total: v.number() })

/** Bytes that a daemon has asked an image's backend for since it is mounted. Undefined where it does not say. */
export async function fetchedBytes(daemon: Nydusd, key: string, signal: AbortSignal): Promise<number | undefined> {
  const told = await daemon.api.metrics('/backend', idOf(daemon, key), signal).catch(() => undefined) // as above
  const read = v.safeParse(BACKEND, told)
  return read.success ? read.output.read_amount_total : undefined
}

/** Of the image, in the daemon's API. */
function idOf({ isShared }: Nydusd, key: string): string | undefined {
  return isShared ? `/${key}` : undefined
}
