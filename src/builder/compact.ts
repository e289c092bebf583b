import { BLOB_FEATURES, type BlobInfo } from '../blob/index.ts'
import {
  type ChunkId,
  chunkFrom,
  FileTree,
  loadFiles,
  type NodeId,
  type RafsChunk,
  type StoredChunk,
} from '../rafs/index.ts'
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
  readonly #files = new FileTree()
  /** By chunk that files have: what they name instead. */
  #instead = new Uint32Array(0)
  /** Blobs of the image, then those of the dictionary that came to it. */
  readonly #blobs: BlobInfo[]
  readonly #used: Array<Set<ChunkId>>

  constructor(from: CopiedImage, options: CompactOptions) {
    this.#from = from
    this.#options = options
    this.#blobs = from.image.blobs.map(importedBlob)
    this.#used = this.#blobs.map(() => new Set())
  }

  async run(): Promise<readonly BlobInfo[] | undefined> {
    const { image } = this.#from
    if (image.blobs.length < this.#options.minBlobs) return undefined
    const root = loadFiles(image, this.#files, [...image.blobs.keys()])
    this.#collect(root)
    const uses = await this.#uses()
    const plans = planCompaction(uses, this.#options)
    this.#tell(uses, plans)
    if (plans.every(({ kind }) => kind === 'keep')) return undefined
    return await this.#rebuild(root, plans)
  }

  /** Which chunks are used, each digest from one blob: the dictionary's, or the first that has it. */
  #collect(root: NodeId): void {
    const files = this.#files
    const known = new Map<string, ChunkId>()
    this.#instead = new Uint32Array(files.chunks.end)
    for (const id of files.hybridOrder(root)) {
      const count = files.chunkCount(id)
      for (let at = 0; at < count; at += 1) {
        const chunk = files.chunks.at(files.chunk(id, at))
        if (this.#instead[chunk.id] !== 0) continue
        const chosen = this.#mayChange(chunk.blobIndex) ? this.#chosen(chunk, known) : chunk.id
        this.#instead[chunk.id] = chosen
        this.#used[files.chunks.at(chosen).blobIndex]?.add(chosen)
      }
    }
  }

  #chosen(chunk: StoredChunk, known: Map<string, ChunkId>): ChunkId {
    const key = `${this.#blobs[chunk.blobIndex]?.digest} ${chunk.uncompressedSize} ${toKey(chunk.digest)}`
    const chosen = known.get(key) ?? this.#fromDictionary(chunk) ?? chunk.id
    known.set(key, chosen)
    return chosen
  }

  #fromDictionary(chunk: RafsChunk): ChunkId | undefined {
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
    return this.#files.chunks.add(chunkFrom(found, blobIndex))
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
      for (const id of this.#used[index] ?? []) usedSize += this.#files.chunks.at(id).compressedSize
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

  async #rebuild(root: NodeId, plans: readonly BlobPlan[]): Promise<readonly BlobInfo[]> {
    const { image, signal } = this.#from
    const copier = new ChunkCopier(this.#from)
    const made: NewBlob[] = []
    const blobs: BlobInfo[] = []
    const { chunks } = this.#files
    /** By chunk that is used: which one it is in the new image. */
    const moved = new Uint32Array(chunks.end)
    try {
      for (const [index, plan] of plans.entries()) {
        const blob = this.#blobs[index]
        if (plan.kind === 'drop' || blob === undefined) continue
        const blobIndex = blobs.length
        if (plan.kind === 'keep') {
          for (const id of this.#used[index] ?? []) {
            chunks.at(id).blobIndex = blobIndex
            moved[id] = id
          }
          blobs.push({ ...blob, index: blobIndex })
          continue
        }
        const rebuilt = await this.#newBlob(blob, blobIndex, made)
        const sources = plan.from.flatMap((source) => [...(this.#used[source] ?? [])].map((id) => chunks.at(id)))
        const copies = await rebuilt.write(sources.sort(byPlace), copier)
        const ids = new Map<RafsChunk, ChunkId>()
        for (const [at, { id }] of sources.entries()) {
          const copy = copies[at]
          if (copy === undefined) continue
          moved[id] = ids.get(copy) ?? chunks.add(copy)
          ids.set(copy, moved[id])
        }
        blobs.push(rebuilt.info)
        this.#options.onStep(`compactor: successfully rebuild blob ${rebuilt.info.id}`)
      }
      this.#move(root, moved)
      const { bootstrapPath } = this.#options
      await publishImage(made, rewriteImage(image, { files: this.#files, root, blobs }), { bootstrapPath, signal })
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

  /** Lets all files name the chunks of the new image; names of one file have one list. */
  #move(root: NodeId, moved: Uint32Array): void {
    const files = this.#files
    for (const node of files.hybridOrder(root)) {
      if (files.inode(node) !== node) continue
      const { start, count } = files.chunkList(node)
      for (let place = start; place < start + count; place += 1) {
        const chunk = files.chunks.use(place)
        const placed = moved[this.#instead[chunk]]
        if (placed === 0) {
          const { index, blobIndex } = files.chunks.at(chunk)
          throw new BuilderError('READBACK', `chunk ${index} of blob ${blobIndex} went nowhere; please report this`)
        }
        files.chunks.setUse(place, placed)
      }
    }
  }
}

/** The order in which chunks lie, so that files which follow each other still do. */
function byPlace(a: RafsChunk, b: RafsChunk): number {
  return a.blobIndex - b.blobIndex || a.compressedOffset - b.compressedOffset
}
