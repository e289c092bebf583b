/** What an update changes, by the paths of its field mask. */
import { SnapshotterError } from '../errors.ts'
import type { Labels, Snapshot } from '../snapshot.ts'

const LABEL = 'labels.'

/** The labels that a snapshot has afterwards: `labels` replaces all, `labels.<key>` one, also by an empty value; without paths all are replaced. Throws SnapshotterError 'INVALID_ARGUMENT' for other paths. */
export function changedLabels(before: Snapshot, labels: Labels, paths: readonly string[]): Labels {
  if (paths.length === 0) return labels
  let next = new Map(before.labels)
  for (const path of paths)
    if (path === 'labels') next = new Map(labels)
    else if (path.startsWith(LABEL)) {
      const label = path.slice(LABEL.length)
      next.set(label, labels.get(label) ?? '') // an empty one is dropped
    } else
      throw new SnapshotterError(
        'INVALID_ARGUMENT',
        `cannot update ${JSON.stringify(path)} field on snapshot ${JSON.stringify(before.key)}: invalid argument`,
      )
  return next
}
