/** Snapshots as rows of the database. Source: docs/formats/snapshot-store.md. */
import type { DatabaseSync } from 'node:sqlite'
import { SnapshotterError } from '../errors.ts'
import type { Labels, Snapshot, SnapshotKind } from '../snapshot.ts'

/** The numbers of containerd's wire and of the original's database. */
export const KIND_NUMBER: Readonly<Record<SnapshotKind, number>> = { view: 1, active: 2, committed: 3 }
export const KIND_OF: ReadonlyMap<number, SnapshotKind> = new Map([
  [1, 'view'],
  [2, 'active'],
  [3, 'committed'],
])

export const INSERT = `INSERT INTO snapshots (id, key, parent, kind, labels, created_at, updated_at, bytes, inodes)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`
/** Takes the values of `INSERT` but the id, and then the id. */
export const UPDATE = `UPDATE snapshots SET key = ?, parent = ?, kind = ?, labels = ?, created_at = ?, updated_at = ?,
  bytes = ?, inodes = ? WHERE id = ?`
const SELECT = `SELECT child.*, parent.key AS parent_key FROM snapshots AS child
  LEFT JOIN snapshots AS parent ON child.parent = parent.id ORDER BY child.id`

type Value = string | number | bigint | null

/** The values of `INSERT`. */
export function toRow(snapshot: Snapshot, parent: number | null): Value[] {
  const { id, key, kind, labels, createdAt, updatedAt, usage } = snapshot
  const text = JSON.stringify([...labels])
  return [id, key, parent, KIND_NUMBER[kind], text, createdAt, updatedAt, usage?.bytes ?? null, usage?.inodes ?? null]
}

/** All snapshots, a parent before its children or not. Throws SnapshotterError 'BAD_STATE' for rows that we did not write. */
export function* readRows(database: DatabaseSync): Generator<Snapshot> {
  const statement = database.prepare(SELECT)
  statement.setReadBigInts(true)
  for (const row of statement.iterate()) yield fromRow(row)
}

function fromRow(row: Readonly<Record<string, unknown>>): Snapshot {
  const { key, kind, labels, created_at: createdAt, updated_at: updatedAt, bytes, inodes } = row
  const parent = row['parent'] === null ? '' : row['parent_key']
  const known = KIND_OF.get(Number(kind))
  const isRow = typeof key === 'string' && typeof labels === 'string' && typeof parent === 'string'
  if (!isRow || known === undefined || typeof createdAt !== 'bigint' || typeof updatedAt !== 'bigint')
    throw new SnapshotterError('BAD_STATE', `the database has a snapshot ${String(row['id'])} that cannot be read`)
  const id = count(row['id'], key)
  const usage = bytes === null ? undefined : { bytes: count(bytes, key), inodes: count(inodes, key) }
  return { id, key, parent, kind: known, labels: parseLabels(labels, key), createdAt, updatedAt, usage }
}

function count(value: unknown, key: string): number {
  const number = Number(value)
  if (Number.isSafeInteger(number) && number >= 0) return number
  throw new SnapshotterError(
    'BAD_STATE',
    `the database has a number of snapshot ${key} that cannot be: ${String(value)}`,
  )
}

function parseLabels(text: string, key: string): Labels {
  try {
    return new Map(JSON.parse(text) as [string, string][]) // as `toRow` wrote it
  } catch (cause) {
    throw new SnapshotterError('BAD_STATE', `the database has labels of snapshot ${key} that cannot be read`, { cause })
  }
}
