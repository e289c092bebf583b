/** Snapshots as rows of the database. Source: docs/formats/snapshot-store.md. */
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { SnapshotterError } from '../errors.ts'
import type { Labels, Snapshot, SnapshotKind } from '../snapshot.ts'

/** The numbers of containerd's wire and of the original's database. */
export const KIND_NUMBER: Readonly<Record<SnapshotKind, number>> = { view: 1, active: 2, committed: 3 }
export const KIND_OF: ReadonlyMap<number, SnapshotKind> = new Map([
  [1, 'view'],
  [2, 'active'],
  [3, 'committed'],
])

const SELECT = `SELECT child.*, parent.key AS parent_key FROM snapshots AS child
  LEFT JOIN snapshots AS parent ON child.parent = parent.id ORDER BY child.id`

/** The table of snapshots, written a row at a time. A statement names only what it changes: every index that it names is written anew. */
export class SnapshotRows {
  readonly #insert: StatementSync
  readonly #commit: StatementSync
  readonly #rebase: StatementSync
  readonly #labels: StatementSync
  readonly #usage: StatementSync
  readonly #delete: StatementSync

  constructor(database: DatabaseSync) {
    const update = (what: string): StatementSync => database.prepare(`UPDATE snapshots SET ${what} WHERE id = ?`)
    this.#insert = database.prepare(`INSERT INTO snapshots
      (id, key, parent, kind, labels, created_at, updated_at, bytes, inodes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`)
    const committed = 'key = ?, kind = ?, labels = ?, created_at = ?, updated_at = ?, bytes = ?, inodes = ?'
    this.#commit = update(committed)
    this.#rebase = update(`${committed}, parent = ?`)
    this.#labels = update('labels = ?, updated_at = ?')
    this.#usage = update('bytes = ?, inodes = ?')
    this.#delete = database.prepare('DELETE FROM snapshots WHERE id = ?')
  }

  /** `parent` is the id of what it stands on. */
  insert(snapshot: Snapshot, parent: number | null): void {
    const { id, key, kind, labels, createdAt, updatedAt } = snapshot
    const text = labelsText(labels)
    this.#insert.run(id, key, parent, KIND_NUMBER[kind], text, createdAt, updatedAt, ...usageOf(snapshot))
  }

  /** `parent` is the id of what it stands on from now on; undefined for what it did. */
  commit(snapshot: Snapshot, parent: number | undefined): void {
    const { id, key, kind, labels, createdAt, updatedAt } = snapshot
    const values = [key, KIND_NUMBER[kind], labelsText(labels), createdAt, updatedAt, ...usageOf(snapshot)]
    if (parent === undefined) this.#commit.run(...values, id)
    else this.#rebase.run(...values, parent, id)
  }

  setLabels({ id, labels, updatedAt }: Snapshot): void {
    this.#labels.run(labelsText(labels), updatedAt, id)
  }

  setUsage(snapshot: Snapshot): void {
    this.#usage.run(...usageOf(snapshot), snapshot.id)
  }

  delete(id: number): void {
    this.#delete.run(id)
  }
}

function usageOf({ usage }: Snapshot): [number | null, number | null] {
  return [usage?.bytes ?? null, usage?.inodes ?? null]
}

function labelsText(labels: Labels): string {
  return JSON.stringify([...labels])
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
    return new Map(JSON.parse(text) as [string, string][]) // as it was written above
  } catch (cause) {
    throw new SnapshotterError('BAD_STATE', `the database has labels of snapshot ${key} that cannot be read`, { cause })
  }
}
