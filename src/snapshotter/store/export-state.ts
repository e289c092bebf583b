/** Giving a root back to the original's containerd-nydus-grpc. Source: docs/formats/bolt.md. */
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { SnapshotterError } from '../errors.ts'
import { metadataTree, nydusTree } from './bolt/export-trees.ts'
import { boltBytes } from './bolt/write-bolt.ts'
import { codedDatabaseError, DATABASE } from './database.ts'
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
    replace(store.root, {
      [METADATA]: boltBytes(metadataTree(snapshots, lastId), transaction),
      [NYDUS]: boltBytes(nydusTree(daemons, instances), transaction),
    })
  } catch (error) {
    throw codedDatabaseError(error, `cannot give back the state in ${root}`, store.root)
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

/** Every file has all of its new content or all of the old, whenever the machine stops; no file is new before all are written. What was there stays beside it. */
function replace(root: string, files: Readonly<Record<string, Uint8Array>>): void {
  const paths = Object.keys(files).map((name) => join(root, name))
  try {
    for (const [name, content] of Object.entries(files)) writeWhole(join(root, `${name}.new`), content)
  } catch (error) {
    for (const path of paths) rmSync(`${path}.new`, { force: true })
    throw error
  }
  for (const path of paths) {
    if (existsSync(path)) renameSync(path, `${path}.before-export`)
    renameSync(`${path}.new`, path)
  }
}

function writeWhole(path: string, content: Uint8Array): void {
  rmSync(path, { force: true })
  const fd = openSync(path, 'wx', 0o600)
  try {
    for (let done = 0; done < content.length; ) done += writeSync(fd, content, done)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

function syncFile(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
