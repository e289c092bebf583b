import { type Digest, parseDigest } from '../../registry/index.ts'
import { NYDUS_ALTERNATIVE } from '../labels.ts'
import type { Labels } from '../snapshot.ts'
import { MAX_STORED_BYTES } from './bootstrap-layer.ts'

/** The other form of an image: where it was found, and its layer with the bootstrap. */
export interface FoundBootstrap {
  /** In the index under the image's name, or among what refers to the image. */
  readonly kind: 'index' | 'referrer'
  /** The image's reference, as the label has it: the layer is in its repository. */
  readonly reference: string
  readonly digest: Digest
  /** Bytes as stored. */
  readonly size: number
  /** For the snapshot: `Detector.find` then knows it without asking anybody. */
  readonly labels: Labels
}

/** The value of the label: `index,sha256:…,12345`. */
export function foundBootstrap(of: Omit<FoundBootstrap, 'labels'>): FoundBootstrap {
  return { ...of, labels: new Map([[NYDUS_ALTERNATIVE, `${of.kind},${of.digest},${of.size}`]]) }
}

/** What the label says; undefined when it is not there, or not what we write. */
export function labelledBootstrap(labels: Labels, reference: string): FoundBootstrap | undefined {
  const [kind, digest = '', size = '', ...more] = (labels.get(NYDUS_ALTERNATIVE) ?? '').split(',')
  if ((kind !== 'index' && kind !== 'referrer') || more.length > 0 || !/^[1-9]\d{0,15}$/.test(size)) return undefined
  if (Number(size) > MAX_STORED_BYTES) return undefined
  try {
    return foundBootstrap({ kind, reference, digest: parseDigest(digest), size: Number(size) })
  } catch {
    return undefined // not ours: it is looked for
  }
}
