import { parseReference } from '../../registry/index.ts'
import { SnapshotterError } from '../errors.ts'
import type { IdMapping } from '../id-mapping.ts'
import { CRI_IMAGE_REF, STARGZ_REFERENCE } from '../labels.ts'
import type { Labels, Snapshot } from '../snapshot.ts'
import { messageOf } from './message.ts'

/** What somebody wants to read. */
export interface ImageRequest {
  /** Of the layer with the bootstrap. */
  readonly snapshot: Snapshot
  /** Its directory, `snapshots/<id>`. */
  readonly directory: string
  /** The image's name, as a client gave it; '' when no client did. */
  readonly reference: string
  readonly labels: Labels
  readonly idMapping?: IdMapping
}

/** The image's name, as clients tell it in labels; '' when none did. */
export function referenceOf(labels: Labels): string {
  return labels.get(CRI_IMAGE_REF) ?? labels.get(STARGZ_REFERENCE) ?? ''
}

/** The name of a mounted image: the number of its snapshot, for shifted ids with the first of them. */
export function imageKey(snapshotId: number, mapping: IdMapping | undefined): string {
  return mapping === undefined ? String(snapshotId) : `${snapshotId}-userns-${mapping.host}`
}

/** Where nydusd finds the blobs. Docker Hub answers blobs under another name than the one in references. Throws SnapshotterError 'INVALID_ARGUMENT'. */
export function registryOf(reference: string): { readonly host: string; readonly repository: string } {
  try {
    const { host, repository } = parseReference(reference)
    return { host: host === 'docker.io' ? 'index.docker.io' : host, repository }
  } catch (error) {
    throw new SnapshotterError('INVALID_ARGUMENT', messageOf(error), { cause: error })
  }
}
