/** What may be made of which snapshot; codes and texts are those of containerd's own storage. */
import { SnapshotterError } from '../errors.ts'
import type { Snapshot } from '../snapshot.ts'
import type { SnapshotIndex } from './snapshot-index.ts'

/** What a new active snapshot or view stands on; undefined for nothing. */
export function parentOfNew(index: SnapshotIndex, key: string, parent: string): Snapshot | undefined {
  const above = parent === '' ? undefined : index.get(parent)
  if (parent !== '' && above === undefined)
    throw new SnapshotterError('NOT_FOUND', `missing parent ${JSON.stringify(parent)} bucket: not found`)
  if (above !== undefined && above.kind !== 'committed')
    throw new SnapshotterError(
      'INVALID_ARGUMENT',
      `parent ${JSON.stringify(parent)} is not committed snapshot: invalid argument`,
    )
  if (index.get(key) !== undefined) throw new SnapshotterError('ALREADY_EXISTS', `snapshot ${key}: already exists`)
  return above
}

/** The active snapshot that becomes `name`. */
export function toBeCommitted(index: SnapshotIndex, name: string, key: string): Snapshot {
  const active = index.get(key)
  if (active === undefined)
    throw new SnapshotterError('NOT_FOUND', `failed to get active snapshot ${JSON.stringify(key)}: not found`)
  if (index.get(name) !== undefined)
    throw new SnapshotterError('ALREADY_EXISTS', `committed snapshot ${name}: already exists`)
  if (active.kind !== 'active')
    throw new SnapshotterError(
      'FAILED_PRECONDITION',
      `snapshot ${JSON.stringify(key)} is not active: failed precondition`,
    )
  return active
}

/** What it stands on afterwards: what it does, or, if that is nothing, the parent that is given at the commit. */
export function parentOfCommitted(index: SnapshotIndex, active: Snapshot, parent: string): Snapshot | undefined {
  const key = JSON.stringify(active.key)
  if (parent !== '' && active.parent !== '' && parent !== active.parent)
    throw new SnapshotterError(
      'INVALID_ARGUMENT',
      `cannot change parent of active snapshot ${key} on commit: invalid argument`,
    )
  const name = active.parent === '' ? parent : active.parent
  if (name === '') return undefined
  const above = index.get(name)
  if (above === undefined)
    throw new SnapshotterError('NOT_FOUND', `missing parent ${JSON.stringify(name)} of snapshot ${key}: not found`)
  if (above.kind !== 'committed')
    throw new SnapshotterError(
      'FAILED_PRECONDITION',
      `parent ${JSON.stringify(name)} is not committed: failed precondition`,
    )
  return above
}
