/** When blobs are rebuilt. Sizes are bytes. */
export interface CompactLimits {
  /** Blobs of which less than this percentage is used are rebuilt; 0: none. */
  readonly minUsedRatio: number
  /** Blobs smaller than this are merged. */
  readonly compactBlobSize: number
  /** A merged blob is no larger. */
  readonly maxCompactSize: number
}

/** What a plan needs to know of a blob. */
export interface BlobUse {
  /** False: it is left alone, whatever of it is used. */
  readonly mayChange: boolean
  /** As it is stored. */
  readonly storedSize: number
  /** Stored bytes of its chunks that the image uses, each once. */
  readonly usedSize: number
  /** The image uses all of its chunks: rebuilt it would be the same. */
  readonly isWhole: boolean
  /** Only blobs of one kind can be merged. */
  readonly kind: string
}

/** What becomes of a blob: `rebuild` makes a new blob of its used chunks and of those of the blobs of `from`, itself among them. */
export type BlobPlan =
  | { readonly kind: 'keep' }
  | { readonly kind: 'drop' }
  | { readonly kind: 'rebuild'; readonly from: readonly number[] }

/**
 * The intended algorithm of the original's compactor: unused blobs are dropped, blobs of which too little is used are rebuilt, and of the small ones as many as fit are merged, the
 * smallest first. One plan a blob, in their order; a blob that went into another one is dropped.
 */
export function planCompaction(blobs: readonly BlobUse[], limits: CompactLimits): BlobPlan[] {
  const plans: BlobPlan[] = blobs.map((blob, index) => {
    if (!blob.mayChange) return { kind: 'keep' }
    if (blob.usedSize === 0) return { kind: 'drop' }
    return usedRatio(blob) < limits.minUsedRatio ? { kind: 'rebuild', from: [index] } : { kind: 'keep' }
  })
  for (const kind of new Set(blobs.map((blob) => blob.kind))) merge(blobs, kind, limits, plans)
  return plans
}

/** Whole percents of a blob that are used. What describes the chunks counts as unused, as in the original, but for blobs whose chunks are all used. */
export function usedRatio({ usedSize, storedSize, isWhole }: BlobUse): number {
  return isWhole || storedSize === 0 ? 100 : Math.floor((usedSize * 100) / storedSize)
}

function merge(blobs: readonly BlobUse[], kind: string, limits: CompactLimits, plans: BlobPlan[]): void {
  const small = blobs
    .map((blob, index) => ({ blob, index, size: sizeNow(blob, plans[index]) }))
    .filter(
      ({ blob, index, size }) =>
        blob.kind === kind && blob.mayChange && plans[index]?.kind !== 'drop' && size < limits.compactBlobSize,
    )
    .sort((a, b) => a.size - b.size || a.index - b.index)
  let [into] = small
  let merged = into?.blob.usedSize ?? 0
  for (const next of small.slice(1)) {
    if (into !== undefined && merged + next.blob.usedSize <= limits.maxCompactSize) {
      const plan = plans[into.index]
      plans[into.index] = {
        kind: 'rebuild',
        from: [...(plan?.kind === 'rebuild' ? plan.from : [into.index]), next.index],
      }
      plans[next.index] = { kind: 'drop' }
      merged += next.blob.usedSize
    } else {
      into = next
      merged = next.blob.usedSize
    }
  }
}

/** A blob that is rebuilt will have its used chunks only. */
function sizeNow({ storedSize, usedSize }: BlobUse, plan: BlobPlan | undefined): number {
  return plan?.kind === 'rebuild' || storedSize === 0 ? usedSize : storedSize
}
