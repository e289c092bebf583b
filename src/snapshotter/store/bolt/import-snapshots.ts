/** Reads the original's records of snapshots. Source: docs/formats/bolt.md, "metadata.db". */
import { SnapshotterError } from '../../errors.ts'
import type { Labels, Snapshot, Usage } from '../../snapshot.ts'
import { KIND_OF } from '../rows.ts'
import { Bucket, type BoltFile } from './bolt-file.ts'
import { readGoTime, readUvarint, readVarint } from './go-values.ts'
import { SNAPSHOT, SNAPSHOTS, VERSION_BUCKET } from './names.ts'

export interface ImportedSnapshots {
  readonly snapshots: readonly Snapshot[]
  /** The last id that was given. */
  readonly lastId: number
}

/** Throws SnapshotterError 'BAD_STATE' naming the record that cannot be. */
export function readSnapshots(file: BoltFile, path: string): ImportedSnapshots {
  const version = file.root().read().get(VERSION_BUCKET)
  const bucket = version instanceof Bucket ? version.read().get(SNAPSHOTS) : undefined
  if (!(bucket instanceof Bucket)) return { snapshots: [], lastId: 0 }
  const reading = new Reading(path)
  const snapshots = [...bucket.read()].flatMap(([key, value]) =>
    value instanceof Bucket ? [reading.snapshot(reading.text(Buffer.from(key, 'latin1')), value.read())] : [],
  )
  reading.checkParents(snapshots)
  return { snapshots, lastId: snapshots.reduce((most, { id }) => Math.max(most, id), bucket.sequence) }
}

class Reading {
  readonly #path: string
  readonly #ids = new Set<number>()

  constructor(path: string) {
    this.#path = path
  }

  snapshot(key: string, values: ReadonlyMap<string, Uint8Array | Bucket>): Snapshot {
    const bytes = (name: string) => {
      const value = values.get(name)
      return value instanceof Bucket ? undefined : value
    }
    const id = readUvarint(bytes(SNAPSHOT.id) ?? new Uint8Array())
    if (id === undefined || id === 0 || this.#ids.has(id)) this.#fail(key, 'it has no id of its own')
    this.#ids.add(id)
    const kind = KIND_OF.get(bytes(SNAPSHOT.kind)?.[0] ?? 0) ?? this.#fail(key, 'it is of no known kind')
    const labels = values.get(SNAPSHOT.labels)
    const [size, inodes] = [bytes(SNAPSHOT.bytes), bytes(SNAPSHOT.inodes)]
    return {
      id,
      key,
      parent: this.text(bytes(SNAPSHOT.parent) ?? new Uint8Array()),
      kind,
      labels: labels instanceof Bucket ? this.#labels(labels) : new Map(),
      createdAt: readGoTime(bytes(SNAPSHOT.createdAt) ?? new Uint8Array()) ?? 0n,
      updatedAt: readGoTime(bytes(SNAPSHOT.updatedAt) ?? new Uint8Array()) ?? 0n,
      // Ours exports layers without one that nobody has measured.
      usage: kind === 'committed' && size !== undefined && inodes !== undefined ? usageOf(size, inodes) : undefined,
    }
  }

  /** Every parent is a committed snapshot, and none stands on itself. */
  checkParents(snapshots: readonly Snapshot[]): void {
    const byKey = new Map(snapshots.map((snapshot) => [snapshot.key, snapshot]))
    const rooted = new Set<string>([''])
    for (const { key, parent } of snapshots) {
      const above = byKey.get(parent)
      if (parent !== '' && above === undefined) this.#fail(key, `its parent ${JSON.stringify(parent)} is missing`)
      if (above !== undefined && above.kind !== 'committed')
        this.#fail(key, `its parent ${JSON.stringify(parent)} is not committed`)
      const path: string[] = []
      for (let at = key; !rooted.has(at); at = byKey.get(at)?.parent ?? '') {
        path.push(at)
        if (path.length > snapshots.length) this.#fail(key, 'it stands on itself')
      }
      for (const name of path) rooted.add(name)
    }
  }

  text(bytes: Uint8Array): string {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    } catch {
      return this.#fail(Buffer.from(bytes).toString(), 'its name or a label is not text')
    }
  }

  #labels(bucket: Bucket): Labels {
    const labels = new Map<string, string>()
    for (const [key, value] of bucket.read())
      if (!(value instanceof Bucket) && value.length > 0)
        labels.set(this.text(Buffer.from(key, 'latin1')), this.text(value))
    return labels
  }

  #fail(key: string, why: string): never {
    const step = "move it away to start without it, and remove this snapshotter's images from containerd"
    throw new SnapshotterError(
      'BAD_STATE',
      `cannot take over ${this.#path}: snapshot ${JSON.stringify(key.slice(0, 256))}: ${why}; ${step}`,
    )
  }
}

function usageOf(bytes: Uint8Array, inodes: Uint8Array): Usage {
  const amount = (value: Uint8Array): number => Math.max(0, readVarint(value) ?? 0)
  return { bytes: amount(bytes), inodes: amount(inodes) }
}
