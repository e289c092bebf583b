/** Records of daemons and of the images that they serve. */
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { SnapshotterError } from '../errors.ts'
import { codedDatabaseError } from './database.ts'

export type RecordKind = 'daemons' | 'instances'

export interface StoredRecord {
  readonly key: string
  /** Given when the key was put first; records that are restored one after the other go by it. */
  readonly seq: number
  readonly json: string
}

const MAX_JSON = 16 * 2 ** 20

/** Where the records are, and what runs a change. */
interface RecordPlace {
  readonly path: string
  readonly change: <T>(act: () => T) => T
}

/** One table. What was changed survives the process at once, and the machine after the store's `flush`. */
export class RecordTable {
  readonly #place: RecordPlace
  readonly #put: StatementSync
  readonly #remove: StatementSync
  readonly #all: StatementSync

  constructor(database: DatabaseSync, kind: RecordKind, place: RecordPlace) {
    this.#place = place
    this.#put = database.prepare(`INSERT INTO ${kind} (key, seq, json)
      VALUES (?, (SELECT coalesce(max(seq), 0) + 1 FROM ${kind}), ?) ON CONFLICT (key) DO UPDATE SET json = excluded.json
      RETURNING seq`)
    this.#remove = database.prepare(`DELETE FROM ${kind} WHERE key = ?`)
    this.#all = database.prepare(`SELECT key, seq, json FROM ${kind} ORDER BY seq`)
  }

  /** Replaces what the key had; gives its place in the order. */
  put(key: string, json: string): number {
    if (key === '' || json.length > MAX_JSON)
      throw new SnapshotterError(
        'INVALID_ARGUMENT',
        `a record ${JSON.stringify(key)} of ${json.length} characters cannot be kept`,
      )
    return this.#run('keep', key, () => this.#place.change(() => Number(this.#put.get(key, json)?.['seq'])))
  }

  /** Of a key that is not there: nothing happens. */
  remove(key: string): void {
    this.#run('remove', key, () => this.#place.change(() => this.#remove.run(key)))
  }

  all(): StoredRecord[] {
    return this.#run('read', 'all', () =>
      this.#all.all().map(({ key, seq, json }) => ({ key: String(key), seq: Number(seq), json: String(json) })),
    )
  }

  #run<T>(action: string, key: string, call: () => T): T {
    try {
      return call()
    } catch (error) {
      throw codedDatabaseError(error, `cannot ${action} the record ${key}`, this.#place.path)
    }
  }
}
