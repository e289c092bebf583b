/** What an earlier snapshotter left: records become daemons and images again; what belongs to no record is cleared away, if nobody uses it. */
import { existsSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { join, sep } from 'node:path'
import type { RecordTable } from '../store/index.ts'
import { readMountInfo } from '../../kernel/index.ts'
import { bootstrapPath } from './bootstrap.ts'
import { type DaemonImage, type DaemonParts, Nydusd } from './daemon.ts'
import { Holder } from './holder.ts'
import { forgetDescriptor, keptNames } from '../service-manager.ts'
import { mountState } from './mount-state.ts'
import { detach, sourceDirectory } from './places.ts'
import { processesServing } from './processes.ts'
import { type InstanceRecord, readRecords } from './records.ts'

const STATFS_MS = 2_000

export interface Found {
  readonly daemons: readonly Nydusd[]
  /** Daemons of one image which no record of an image names: it was released. None when a record cannot be read, which may be that one's. */
  readonly released: ReadonlySet<string>
  readonly lastNumber: number
}

/** Daemons with their images, none of them asked for yet. Images whose daemon or bootstrap is gone are forgotten. */
export function findRecorded(parts: DaemonParts, instances: RecordTable): Found {
  const { log, settings, records } = parts
  const found = readRecords(records, instances)
  for (const line of found.damaged) log.warn(`a record cannot be read, and is left alone: ${line}`)
  const daemons = new Map(
    found.daemons
      .filter(({ FsDriver }) => FsDriver === 'fusedev')
      .map((record) => [record.ID, new Nydusd(parts, upToDate(record), 'recorded')]),
  )
  const serving = new Set(found.instances.map(({ DaemonID }) => DaemonID))
  const areAllRead = found.instances.length === instances.all().length
  const released = [...daemons.values()].filter(({ id, isShared }) => areAllRead && !isShared && !serving.has(id))
  for (const record of found.instances) {
    const daemon = daemons.get(record.DaemonID)
    const bootstrap = bootstrapPath(sourceDirectory(settings.root, record))
    if (daemon !== undefined && existsSync(bootstrap)) daemon.images.set(record.SnapshotID, recorded(record, bootstrap))
    else {
      log.info(
        `image ${record.ImageID} (${record.SnapshotID}) is forgotten: its ${daemon === undefined ? 'daemon' : 'bootstrap'} is gone`,
      )
      instances.remove(record.SnapshotID)
    }
  }
  return {
    daemons: [...daemons.values()],
    released: new Set(released.map(({ id }) => id)),
    lastNumber: found.instances.at(-1)?.Seq ?? 0,
  }
}

/** Upstream's word of older versions. */
function upToDate<T extends { readonly DaemonMode: string }>(record: T): T {
  return { ...record, DaemonMode: record.DaemonMode === 'shared' ? 'shared' : 'dedicated' }
}

function recorded(record: InstanceRecord, bootstrap: string): DaemonImage {
  return { record, bootstrap, prefetch: [], prefetchList: undefined, isMounted: false }
}

/** Mounts whose daemons are gone, sockets and configurations that belong to no daemon. A mount that somebody serves is left alone: containers may use it. */
export async function clearLeftovers({ log, settings }: DaemonParts, daemons: readonly Nydusd[]): Promise<void> {
  const places = new Set(daemons.map(({ record }) => record.Mountpoint))
  for (const { at, type } of await readMountInfo()) {
    if (!at.startsWith(settings.root + sep) || !type.startsWith('fuse') || places.has(at)) continue
    if ((await mountState(at, STATFS_MS)) === 'dead') {
      log.warn(`${at} has the mount of a daemon that is gone; it is detached`)
      await detach(at)
    } else log.warn(`${at} is served by a nydusd that no record knows, and is left alone; "umount ${at}" ends it`)
  }
  const ids = new Set(daemons.map(({ id }) => id))
  const supervisors = join(settings.root, 'supervisor')
  for (const name of await readdir(supervisors).catch(() => [])) {
    const id = name.slice(0, name.indexOf('.'))
    if (!ids.has(id)) new Holder(join(supervisors, id), log).end()
  }
  for (const id of keptNames()) if (!ids.has(id)) forgetDescriptor(id, log)
  for (const folder of ['socket', 'config'])
    for (const id of await readdir(join(settings.root, folder)).catch(() => []))
      if (!ids.has(id) && (await processesServing(join(settings.root, 'socket', id, 'api.sock'))).length === 0)
        await rm(join(settings.root, folder, id), { recursive: true, force: true })
}
