import {
  ContainerdError,
  encodeInfo,
  encodeMounts,
  listOf,
  NOTHING,
  type ServedCall,
  type Service,
  service,
  type SnapshotInfo,
  SnapshotKindNumber,
  Snapshots,
  type StatusCode,
} from '../containerd/index.ts'
import { SnapshotterError, type SnapshotterErrorCode } from './errors.ts'
import type { Labels, Snapshot, SnapshotKind } from './snapshot.ts'
import type { Snapshotter } from './snapshotter.ts'

/** containerd's own message has as many. */
const INFOS_A_MESSAGE = 100
const NANOS = 1_000_000_000n

const KIND: Readonly<Record<SnapshotKind, (typeof SnapshotKindNumber)[keyof typeof SnapshotKindNumber]>> = {
  view: SnapshotKindNumber.VIEW,
  active: SnapshotKindNumber.ACTIVE,
  committed: SnapshotKindNumber.COMMITTED,
}

/** The only place where errors become codes of gRPC, and containerd compares only these. */
const STATUS: Readonly<Record<SnapshotterErrorCode, StatusCode>> = {
  ALREADY_EXISTS: 'ALREADY_EXISTS',
  NOT_FOUND: 'NOT_FOUND',
  FAILED_PRECONDITION: 'FAILED_PRECONDITION',
  INVALID_ARGUMENT: 'INVALID_ARGUMENT',
  RESOURCE_EXHAUSTED: 'RESOURCE_EXHAUSTED',
  UNAVAILABLE: 'UNAVAILABLE',
  DEADLINE_EXCEEDED: 'DEADLINE_EXCEEDED',
  CANCELLED: 'CANCELLED',
  UNIMPLEMENTED: 'UNIMPLEMENTED',
  LOCKED: 'UNAVAILABLE',
  BAD_CONFIG: 'FAILED_PRECONDITION',
  BAD_STATE: 'DATA_LOSS',
  INTERNAL: 'INTERNAL',
}

/** The snapshotter as containerd's service `containerd.services.snapshots.v1.Snapshots`. The request's name of a snapshotter is the client's, and is not looked at. */
export function snapshotsService(snapshotter: Snapshotter): Service {
  return service(Snapshots, {
    prepare: ({ key, parent, labels }, call) =>
      answer(call, async () => encodeMounts(await snapshotter.prepare(key, parent, labelsFrom(labels), call.signal))),
    view: ({ key, parent, labels }, call) =>
      answer(call, async () => encodeMounts(await snapshotter.view(key, parent, labelsFrom(labels), call.signal))),
    mounts: ({ key }, call) => answer(call, async () => encodeMounts(await snapshotter.mounts(key, call.signal))),
    commit: ({ name, key, labels, parent }, call) =>
      answer(call, async () => {
        await snapshotter.commit(name, key, labelsFrom(labels), parent)
        return NOTHING
      }),
    remove: ({ key }, call) =>
      answer(call, async () => {
        await snapshotter.remove(key, call.signal)
        return NOTHING
      }),
    stat: ({ key }, call) => answer(call, async () => ({ info: infoOf(snapshotter.stat(key)) })),
    update: ({ info, updateMask }, call) =>
      answer(call, async () => {
        const { name, labels } = info ?? { name: '', labels: {} }
        return { info: infoOf(await snapshotter.update(name, labelsFrom(labels), updateMask?.paths ?? [])) }
      }),
    list: ({ filters }, call) => list(snapshotter, filters, call),
    usage: ({ key }, call) =>
      answer(call, async () => {
        const { bytes, inodes } = await snapshotter.usage(key, call.signal)
        return { size: BigInt(bytes), inodes: BigInt(inodes) }
      }),
    cleanup: (_request, call) =>
      answer(call, async () => {
        await snapshotter.cleanup(call.signal)
        return NOTHING
      }),
  })
}

/** Snapshots are never changed, but replaced. */
const encoded = new WeakMap<Snapshot, Uint8Array>()

function encodedInfo(snapshot: Snapshot): Uint8Array {
  const known = encoded.get(snapshot)
  if (known !== undefined) return known
  const bytes = encodeInfo(infoOf(snapshot))
  encoded.set(snapshot, bytes)
  return bytes
}

async function* list(
  snapshotter: Snapshotter,
  filters: readonly string[],
  call: ServedCall,
): AsyncGenerator<ReturnType<typeof listOf>> {
  let infos: Uint8Array[] = []
  try {
    for (const snapshot of snapshotter.list(filters)) {
      infos.push(encodedInfo(snapshot))
      if (infos.length < INFOS_A_MESSAGE) continue
      yield listOf(infos)
      infos = []
    }
  } catch (error) {
    throw wireError(error, call)
  }
  if (infos.length > 0) yield listOf(infos)
}

async function answer<T>(call: ServedCall, act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (error) {
    throw wireError(error, call)
  }
}

function wireError(error: unknown, call: ServedCall): ContainerdError {
  const message = error instanceof Error ? error.message : String(error)
  if (error instanceof SnapshotterError) return new ContainerdError(STATUS[error.code], message, { cause: error })
  return new ContainerdError(call.signal.aborted ? 'CANCELLED' : 'UNKNOWN', message, { cause: error })
}

type Init = Pick<SnapshotInfo, 'name' | 'parent' | 'kind' | 'labels'> &
  Record<'createdAt' | 'updatedAt', { seconds: bigint; nanos: number }>

function infoOf({ key, parent, kind, labels, createdAt, updatedAt }: Snapshot): Init {
  return {
    name: key,
    parent,
    kind: KIND[kind],
    labels: Object.fromEntries(labels),
    createdAt: timestamp(createdAt),
    updatedAt: timestamp(updatedAt),
  }
}

function timestamp(nanoseconds: bigint): { seconds: bigint; nanos: number } {
  return { seconds: nanoseconds / NANOS, nanos: Number(nanoseconds % NANOS) }
}

function labelsFrom(labels: Readonly<Record<string, string>>): Labels {
  return new Map(Object.entries(labels))
}
