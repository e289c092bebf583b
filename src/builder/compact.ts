import { BLOB_FEATURES, type BlobInfo } from '../blob/index.ts'
import { chunkFrom, hybridOrder, type RafsChunk, type RafsNode, readTree } from '../rafs/index.ts'
import { ChunkCopier, type CopiedImage } from './chunk-copier.ts'
import { type BlobPlan, type BlobUse, type CompactLimits, planCompaction, usedRatio } from './compact-plan.ts'
import type { ChunkDictionary } from './dictionary.ts'
import { BuilderError, coded } from './errors.ts'
import { toKey } from './image-path.ts'
import { importedBlob } from './merge.ts'
import { NewBlob, publishImage } from './new-blob.ts'
import { rewriteImage } from './rewrite-image.ts'

/** Blobs that are left as they are: shared by design, or not made of chunks that stand for themselves. */
const FIXED =
  BLOB_FEATURES.BATCH |
  BLOB_FEATURES.ZRAN |
  BLOB_FEATURES.SEPARATE |
  BLOB_FEATURES.TARFS |
  BLOB_FEATURES.ENCRYPTED |
  BLOB_FEATURES.EXTERNAL |
  BLOB_FEATURES.CHUNKDICT_GENERATED

export interface CompactOptions extends CompactLimits {
  /** With fewer blobs nothing is done. */
  readonly minBlobs: number
  /** Its blobs are left alone, and its chunks used wherever the image has them of its own. */
  readonly dictionary: ChunkDictionary | undefined
  readonly bootstrapPath: string
  /** Folder for new blobs. */
  readonly blobFolder: string
  /** Told what is done, in the original's words. */
  readonly onStep: (text: string) => void
}

/**
 * Rewrites an image so that its blobs are used well and are not many: see `planCompaction`. Chunks that several blobs have come from the first one. Every chunk is verified on the way and read back; blobs and
 * bootstrap appear whole or not at all, the old blobs stay. Gives the blobs of the new image; undefined when there is nothing to do, and nothing was written. Throws BuilderError, or the signal's reason.
 */
export async function compactImage(
  from: CopiedImage,
  options: CompactOptions,
): Promise<readonly BlobInfo[] | undefined> {
  try {
    return await new Compaction(from, options).run()
  } catch (error) {
    from.signal.throwIfAborted()
    throw coded(error)
  }
}

class Compaction {
  readonly #from: CopiedImage
  readonly #options: CompactOptions
  /** Chunks that nodes have, and what they name instead. */
  readonly #instead = new Map<RafsChunk, RafsChunk>()
  /** Blobs of the image, then those of the dictionary that came to it. */
  readonly #blobs: BlobInfo[]
  readonly #used: Array<Set<RafsChunk>>

  constructor(from: CopiedImage, options: CompactOptions) {
    this.#from = from
    this.#options = options
    this.#blobs = from.image.blobs.map(importedBlob)
    this.#used = this.#blobs.map(() => new Set())
  }

  async run(): Promise<readonly BlobInfo[] | undefined> {
    const { image } = this.#from
    if (image.blobs.length < this.#options.minBlobs) return undefined
    const { root } = readTree(image)
    this.#collect(root)
    const uses = await this.#uses()
    const plans = planCompaction(uses, this.#options)
    this.#tell(uses, plans)
    if (plans.every(({ kind }) => kind === 'keep')) return undefined
    return await this.#rebuild(root, plans)
  }

  /** Which chunks are used, each digest from one blob: the dictionary's, or the first that has it. */
  #collect(root: RafsNode): void {
    const known = new Map<string, RafsChunk>()
    for (const { chunks } of hybridOrder(root)) {
      for (const chunk of chunks) {
        if (this.#instead.has(chunk)) continue
        const chosen = this.#mayChange(chunk.blobIndex) ? this.#chosen(chunk, known) : chunk
        this.#instead.set(chunk, chosen)
        this.#used[chosen.blobIndex]?.add(chosen)
      }
    }
  }

  #chosen(chunk: RafsChunk, known: Map<string, RafsChunk>): RafsChunk {
    const key = `${this.#blobs[chunk.blobIndex]?.digest} ${chunk.uncompressedSize} ${toKey(chunk.digest)}`
    const chosen = known.get(key) ?? this.#fromDictionary(chunk) ?? chunk
    known.set(key, chosen)
    return chosen
  }

  #fromDictionary(chunk: RafsChunk): RafsChunk | undefined {
    const { dictionary } = this.#options
    const found = dictionary?.get(toKey(chunk.digest))
    const blob = found === undefined ? undefined : dictionary?.blobs[found.blobIndex]
    if (found === undefined || blob === undefined || found.uncompressedSize !== chunk.uncompressedSize) return undefined
    if (blob.digest !== this.#blobs[chunk.blobIndex]?.digest) return undefined
    let blobIndex = this.#blobs.findIndex(({ id }) => id === blob.id)
    if (blobIndex < 0) {
      blobIndex = this.#blobs.push(importedBlob(blob, this.#blobs.length)) - 1
      this.#used.push(new Set())
    }
    return chunkFrom(found, blobIndex)
  }

  #mayChange(blobIndex: number): boolean {
    const blob = this.#blobs[blobIndex]
    if (blob === undefined)
      throw new BuilderError('BAD_LAYER', `a chunk names blob ${blobIndex} of ${this.#blobs.length}`)
    return (blob.features & FIXED) === 0 && this.#options.dictionary?.blobs.some(({ id }) => id === blob.id) !== true
  }

  async #uses(): Promise<BlobUse[]> {
    const uses: BlobUse[] = []
    for (const [index, blob] of this.#blobs.entries()) {
      let usedSize = 0
      for (const { compressedSize } of this.#used[index] ?? []) usedSize += compressedSize
      const mayChange = this.#mayChange(index)
      const storedSize =
        blob.compressedSize === 0 && mayChange && usedSize > 0 ? await this.#sizeOf(blob) : blob.compressedSize
      const isWhole = this.#used[index]?.size === blob.chunkCount
      uses.push({ mayChange, storedSize, usedSize, isWhole, kind: `${blob.compression} ${blob.digest}` })
    }
    return uses
  }

  async #sizeOf({ id }: BlobInfo): Promise<number> {
    try {
      const reader = await this.#from.backend.open(id)
      try {
        return await reader.size(this.#from.signal)
      } finally {
        await reader.close()
      }
    } catch (cause) {
      this.#from.signal.throwIfAborted()
      throw new BuilderError('BAD_SOURCE', `compactor: failed to get blob size, ${(cause as Error).message}`, { cause })
    }
  }

  #tell(uses: readonly BlobUse[], plans: readonly BlobPlan[]): void {
    const { onStep } = this.#options
    for (const [index, use] of uses.entries()) {
      const { id } = this.#blobs[index] ?? { id: '' }
      if (use.mayChange && use.usedSize === 0) onStep(`compactor: delete unused blob ${id}`)
      onStep(
        `compactor: original blob size ${id}, used data ratio ${use.mayChange && use.usedSize > 0 ? usedRatio(use) : 100}%`,
      )
    }
    for (const [index, { kind }] of plans.entries()) {
      if (kind === 'keep') onStep(`compactor: keep original data blob ${this.#blobs[index]?.id}`)
      if (kind === 'drop') onStep(`compactor: delete compacted blob ${this.#blobs[index]?.id}`)
    }
  }

  async #rebuild(root: RafsNode, plans: readonly BlobPlan[]): Promise<readonly BlobInfo[]> {
    const { image, signal } = this.#from
    const copier = new ChunkCopier(this.#from)
    const made: NewBlob[] = []
    const blobs: BlobInfo[] = []
    const moved = new Map<RafsChunk, RafsChunk>()
    try {
      for (const [index, plan] of plans.entries()) {
        const blob = this.#blobs[index]
        if (plan.kind === 'drop' || blob === undefined) continue
        const blobIndex = blobs.length
        if (plan.kind === 'keep') {
          for (const chunk of this.#used[index] ?? []) moved.set(chunk, { ...chunk, blobIndex })
          blobs.push({ ...blob, index: blobIndex })
          continue
        }
        const rebuilt = await this.#newBlob(blob, blobIndex, made)
        const chunks = plan.from.flatMap((source) => [...(this.#used[source] ?? [])]).sort(byPlace)
        for (const [at, chunk] of (await rebuilt.write(chunks, copier)).entries()) moved.set(chunks[at] ?? chunk, chunk)
        blobs.push(rebuilt.info)
        this.#options.onStep(`compactor: successfully rebuild blob ${rebuilt.info.id}`)
      }
      for (const node of hybridOrder(root)) node.chunks = node.chunks.map((chunk) => this.#placeOf(chunk, moved))
      const { bootstrapPath } = this.#options
      await publishImage(made, rewriteImage(image, { root, blobs }), { bootstrapPath, signal })
      return blobs
    } finally {
      await copier.close()
      for (const blob of made) await blob.discard()
    }
  }

  /** A blob for used chunks of blobs like this one; added to those that are to be discarded. */
  async #newBlob({ compression }: BlobInfo, blobIndex: number, made: NewBlob[]): Promise<NewBlob> {
    const { image, signal } = this.#from
    const blob = await NewBlob.create({
      image,
      blobIndex,
      folder: this.#options.blobFolder,
      compression: compression === 'gzip' && image.version === 6 ? 'zstd' : compression,
      cipher: undefined,
      tarHeaders: false,
      signal,
    })
    made.push(blob)
    return blob
  }

  #placeOf(chunk: RafsChunk, moved: ReadonlyMap<RafsChunk, RafsChunk>): RafsChunk {
    const placed = moved.get(this.#instead.get(chunk) ?? chunk)
    if (placed === undefined)
      throw new BuilderError(
        'READBACK',
        `chunk ${chunk.index} of blob ${chunk.blobIndex} went nowhere; please report this`,
      )
    return placed
  }
}

/** The order in which chunks lie, so that files which follow each other still do. */
function byPlace(a: RafsChunk, b: RafsChunk): number {
  return a.blobIndex - b.blobIndex || a.compressedOffset - b.compressedOffset
}
