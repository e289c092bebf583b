/** For tests: operations on a store, and the simple model that it must agree with. */
import { createHash } from 'node:crypto'
import { SnapshotterError, type SnapshotterErrorCode } from '../../errors.ts'
import type { Snapshot } from '../../snapshot.ts'
import type { SnapshotStore } from '../snapshot-store.ts'

export interface Operation {
  readonly action: 'create' | 'view' | 'commit' | 'rebase' | 'remove' | 'update' | 'label'
  readonly key: string
  /** A name, of a parent or to be given. */
  readonly name: string
  readonly value: string
}

/** What the model and the store must have alike. */
export type Content = Readonly<Record<string, string>>

const ACTIONS = ['create', 'create', 'create', 'view', 'commit', 'commit', 'rebase', 'remove', 'remove', 'update', 'label'] as const
export const KEYS = Array.from({ length: 6 }, (_unused, i) => `key ${i}`)
export const NAMES = Array.from({ length: 6 }, (_unused, i) => `name ${i}`)

/** Always the same for the same numbers. */
export function operation(seed: number, step: number): Operation {
  const [a = 0, b = 0, c = 0, d = 0] = createHash('sha256').update(`${seed} ${step}`).digest()
  const action = ACTIONS[a % ACTIONS.length] ?? 'create'
  const name = c % 3 === 0 ? '' : (NAMES[c % NAMES.length] ?? '')
  const key = action === 'remove' && d % 2 === 0 ? NAMES[b % NAMES.length] : KEYS[b % KEYS.length]
  return { action, key: key ?? '', name, value: String(d) }
}

/** The code of the error, if it is refused. */
export function apply(store: SnapshotStore, { action, key, name, value }: Operation): SnapshotterErrorCode | undefined {
  const labels = new Map([['value', value]])
  try {
    if (action === 'create' || action === 'view') store.create(action === 'view' ? 'view' : 'active', key, name, labels)
    else if (action === 'commit') store.commit(name || 'name', key, labels, { bytes: Number(value), inodes: 1 })
    else if (action === 'rebase') store.commit('rebased', key, labels, { bytes: 0, inodes: 0 }, name)
    else if (action === 'remove') store.remove(key)
    else store.update(key, labels, action === 'label' ? [`labels.${value}`, 'labels.value'] : [])
    return undefined
  } catch (error) {
    if (error instanceof SnapshotterError) return error.code
    throw error
  }
}

export function contentOf(store: SnapshotStore): Content {
  return Object.fromEntries(store.list([]).map((snapshot) => [snapshot.key, shown(snapshot)]))
}

function shown({ kind, parent, labels, usage }: Omit<Snapshot, 'id' | 'key' | 'createdAt' | 'updatedAt'>): string {
  return JSON.stringify([kind, parent, [...labels], usage?.bytes ?? null])
}

interface Entry {
  readonly kind: Snapshot['kind']
  readonly parent: string
  readonly value: string
  readonly bytes: number | undefined
}

/** The contract in the fewest words. */
export class Model {
  #entries = new Map<string, Entry>()

  copy(): Model {
    const copy = new Model()
    copy.#entries = new Map(this.#entries)
    return copy
  }

  content(): Content {
    const entries = [...this.#entries].sort(([a], [b]) => (a < b ? -1 : 1))
    return Object.fromEntries(
      entries.map(([key, { kind, parent, value, bytes }]) => [
        key,
        shown({ kind, parent, labels: new Map([['value', value]]), usage: bytes === undefined ? undefined : { bytes, inodes: 1 } }),
      ]),
    )
  }

  apply(given: Operation): SnapshotterErrorCode | undefined {
    const { action, key, name } = given
    if (action === 'create' || action === 'view') return this.#create(given)
    if (action === 'commit') return this.#commit(given, name || 'name', '')
    if (action === 'rebase') return this.#commit({ ...given, value: given.value }, 'rebased', name)
    const entry = this.#entries.get(key)
    if (entry === undefined) return 'NOT_FOUND'
    if (action === 'remove') {
      if ([...this.#entries.values()].some(({ parent }) => parent === key)) return 'FAILED_PRECONDITION'
      this.#entries.delete(key)
    } else this.#entries.set(key, { ...entry, value: given.value })
    return undefined
  }

  #create({ action, key, name, value }: Operation): SnapshotterErrorCode | undefined {
    const parent = this.#entries.get(name)
    if (name !== '' && parent === undefined) return 'NOT_FOUND'
    if (parent !== undefined && parent.kind !== 'committed') return 'INVALID_ARGUMENT'
    if (this.#entries.has(key)) return 'ALREADY_EXISTS'
    const kind = action === 'view' ? 'view' : 'active'
    this.#entries.set(key, { kind, parent: name, value, bytes: undefined })
    return undefined
  }

  #commit({ key, value, action }: Operation, to: string, base: string): SnapshotterErrorCode | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return 'NOT_FOUND'
    if (this.#entries.has(to)) return 'ALREADY_EXISTS'
    if (entry.kind !== 'active') return 'FAILED_PRECONDITION'
    if (base !== '' && entry.parent !== '' && base !== entry.parent) return 'INVALID_ARGUMENT'
    const parent = entry.parent === '' ? base : entry.parent
    const above = this.#entries.get(parent)
    if (parent !== '' && above === undefined) return 'NOT_FOUND'
    if (above !== undefined && above.kind !== 'committed') return 'FAILED_PRECONDITION'
    this.#entries.delete(key)
    this.#entries.set(to, { kind: 'committed', parent, value, bytes: action === 'commit' ? Number(value) : 0 })
    return undefined
  }
}
