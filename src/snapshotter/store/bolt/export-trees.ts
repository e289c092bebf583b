/** The store's content as the original keeps it. Source: docs/formats/bolt.md, "metadata.db" and "nydus.db". */
import type { Snapshot } from '../../snapshot.ts'
import type { StoredRecord } from '../records.ts'
import { KIND_NUMBER } from '../rows.ts'
import { writeGoTime, writeUvarint, writeVarint } from './go-values.ts'
import {
  CURRENT_VERSION,
  DAEMONS,
  INSTANCES,
  PARENTS,
  SNAPSHOT,
  SNAPSHOTS,
  VERSION_BUCKET,
  VERSION_KEY,
} from './names.ts'
import type { BoltTree } from './write-bolt.ts'

type Entry = readonly [Uint8Array, Uint8Array | BoltTree]

export function metadataTree(snapshots: readonly Snapshot[], lastId: number): BoltTree {
  const ids = new Map(snapshots.map(({ key, id }) => [key, id]))
  const records = snapshots.map((snapshot) => entry(snapshot.key, snapshotTree(snapshot)))
  const links = snapshots.flatMap(({ id, key, parent }): Entry[] => {
    const above = ids.get(parent)
    return above === undefined
      ? []
      : [[Buffer.concat([writeUvarint(above), Buffer.of(0), writeUvarint(id)]), Buffer.from(key)]]
  })
  return tree([entry(VERSION_BUCKET, tree([entry(SNAPSHOTS, tree(records, lastId)), entry(PARENTS, tree(links))]))])
}

export function nydusTree(daemons: readonly StoredRecord[], instances: readonly StoredRecord[]): BoltTree {
  const plain = (record: StoredRecord) => entry(record.key, Buffer.from(record.json))
  // Instances are mounted again in this order.
  const numbered = ({ key, seq, json }: StoredRecord) =>
    entry(key, Buffer.from(JSON.stringify({ ...(JSON.parse(json) as object), Seq: seq })))
  const last = instances.reduce((most, { seq }) => Math.max(most, seq), 0)
  return tree([
    entry(
      VERSION_BUCKET,
      tree([
        entry(VERSION_KEY, Buffer.from(CURRENT_VERSION)),
        entry(DAEMONS, tree(daemons.map(plain))),
        entry(INSTANCES, tree(instances.map(numbered), last)),
      ]),
    ),
  ])
}

function snapshotTree(snapshot: Snapshot): BoltTree {
  const { id, parent, kind, labels, createdAt, updatedAt, usage } = snapshot
  const entries = [
    entry(SNAPSHOT.id, writeUvarint(id)),
    entry(SNAPSHOT.kind, Buffer.of(KIND_NUMBER[kind])),
    entry(SNAPSHOT.createdAt, writeGoTime(createdAt)),
    entry(SNAPSHOT.updatedAt, writeGoTime(updatedAt)),
  ]
  if (parent !== '') entries.push(entry(SNAPSHOT.parent, Buffer.from(parent)))
  if (labels.size > 0)
    entries.push(entry(SNAPSHOT.labels, tree([...labels].map(([key, value]) => entry(key, Buffer.from(value))))))
  if (usage !== undefined)
    entries.push(entry(SNAPSHOT.bytes, writeVarint(usage.bytes)), entry(SNAPSHOT.inodes, writeVarint(usage.inodes)))
  return tree(entries)
}

function tree(entries: readonly Entry[], sequence = 0): BoltTree {
  return { entries, sequence }
}

function entry(key: string, value: Uint8Array | BoltTree): Entry {
  return [Buffer.from(key), value]
}
