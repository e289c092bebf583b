/** Giving a root back to the original's containerd-nydus-grpc. Source: docs/formats/bolt.md. */
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { SnapshotterError } from '../errors.ts'
import { metadataTree, nydusTree } from './bolt/export-trees.ts'
import { boltBytes } from './bolt/write-bolt.ts'
import { DATABASE } from './database.ts'
import { SnapshotStore } from './snapshot-store.ts'
import { METADATA, NYDUS } from './upstream.ts'

export interface ExportedState {
  readonly snapshots: number
  readonly daemons: number
  readonly instances: number
  /** Files that were written, and where the store's own database is now. */
  readonly written: readonly string[]
  readonly kept: string
}

/**
 * Writes the store of a root that no snapshotter uses into the original's databases, and puts the store's own away: the next program that starts on this root goes on from them, ours too. Directories, sockets and
 * running daemons stay as they are. Throws SnapshotterError 'NOT_FOUND' for an empty root, and what `SnapshotStore.open` throws; until the last step the store is as it was.
 */
export function exportState(root: string): ExportedState {
  if (![DATABASE, METADATA].some((name) => existsSync(join(root, name))))
    throw new SnapshotterError('NOT_FOUND', `there is no state of a snapshotter in ${root}; name its root directory`)
  const store = SnapshotStore.open(root)
  let state: ReturnType<SnapshotStore['exportable']>
  try {
    state = store.exportable()
    const { snapshots, lastId, daemons, instances, transaction } = state
    replace(join(store.root, METADATA), boltBytes(metadataTree(snapshots, lastId), transaction))
    replace(join(store.root, NYDUS), boltBytes(nydusTree(daemons, instances), transaction))
  } finally {
    store.close()
  }
  const own = join(store.root, DATABASE)
  const kept = `${own}.exported`
  renameSync(own, kept)
  for (const suffix of ['-wal', '-shm']) rmSync(own + suffix, { force: true })
  syncFile(store.root)
  const { snapshots, daemons, instances } = state
  const written = [METADATA, NYDUS].map((name) => join(store.root, name))
  return { snapshots: snapshots.length, daemons: daemons.length, instances: instances.length, written, kept }
}

/** All of the new content or all of the old, whenever the machine stops. What was there stays beside it. */
function replace(path: string, content: Uint8Array): void {
  const unfinished = `${path}.new`
  rmSync(unfinished, { force: true })
  const fd = openSync(unfinished, 'wx', 0o600)
  try {
    for (let done = 0; done < content.length; ) done += writeSync(fd, content, done)
    fsyncSync(fd)
  } catch (error) {
    rmSync(unfinished, { force: true })
    throw error
  } finally {
    closeSync(fd)
  }
  if (existsSync(path)) renameSync(path, `${path}.before-export`)
  renameSync(unfinished, path)
}

function syncFile(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
