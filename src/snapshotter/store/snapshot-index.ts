/** The records of a store in memory: reading a snapshot, a chain or a list costs no file access. */
import type { Snapshot } from '../snapshot.ts'

export class SnapshotIndex {
  readonly #byKey = new Map<string, Snapshot>()
  /** Keys of the snapshots that stand on a name. */
  readonly #children = new Map<string, Set<string>>()

  get(key: string): Snapshot | undefined {
    return this.#byKey.get(key)
  }

  all(): Snapshot[] {
    return [...this.#byKey.values()]
  }

  hasChildren(name: string): boolean {
    return this.#children.has(name)
  }

  /** These are all there are. */
  replace(snapshots: Iterable<Snapshot>): void {
    this.#byKey.clear()
    this.#children.clear()
    for (const snapshot of snapshots) this.keep(snapshot)
  }

  /** Adds one, or replaces the one of the same key and parent. */
  keep(snapshot: Snapshot): void {
    this.#byKey.set(snapshot.key, snapshot)
    if (snapshot.parent === '') return
    const children = this.#children.get(snapshot.parent) ?? new Set()
    this.#children.set(snapshot.parent, children.add(snapshot.key))
  }

  drop(snapshot: Snapshot): void {
    this.#byKey.delete(snapshot.key)
    const children = this.#children.get(snapshot.parent)
    children?.delete(snapshot.key)
    if (children?.size === 0) this.#children.delete(snapshot.parent)
  }
}
