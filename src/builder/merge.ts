import { BLOB_FEATURES, type BlobInfo } from '../blob/index.ts'
import type { CompressionName, DigestName } from '../codec/index.ts'
import { type Bootstrap, FileTree, loadFiles, type NodeId, type RafsFiles } from '../rafs/index.ts'
import { BuilderError } from './errors.ts'
import { emptyRoot, overlay } from './overlay.ts'
import { prefetchNodes, usedChunks } from './file-order.ts'
import type { WhiteoutSpec } from './whiteout.ts'
import { writeTree } from './write-tree.ts'

/** One layer to merge. The bootstrap is opened with the id of its own blob, if it came out of that blob. */
export interface MergeLayer {
  /** For messages. */
  readonly name: string
  readonly image: Bootstrap
  /** Replaces what the bootstrap says of the layer's own blob (the one that is not the dictionary's): its id, stored size, table of contents. */
  readonly blobId: string | undefined
  /** Of a layer that refers to a gzip file: the id of that file, and the digest of the blob that holds its compression context; `blobSize` is that blob's then, and `blobId` not used. */
  readonly layerId?: string | undefined
  readonly metaBlobDigest?: Uint8Array | undefined
  readonly blobSize: number | undefined
  readonly tocDigest: Uint8Array | undefined
  readonly tocSize: number | undefined
}

export interface MergeOptions {
  /** Lies below all layers. */
  readonly parent: Bootstrap | undefined
  /** Its blobs may occur in any layer. */
  readonly dictionary: Bootstrap | undefined
  readonly whiteoutSpec: WhiteoutSpec
  /** Absolute paths for the prefetch table; none: no table. */
  readonly prefetchPaths: readonly string[]
  /** Told when a layer has been laid over those below. */
  readonly onLayer?: () => void
}

export interface MergedImage {
  /** Of the whole image, in the layers' version of RAFS. */
  readonly bootstrap: Uint8Array
  /** In the order of their first use; layers whose data nothing uses are not among them. */
  readonly blobs: readonly BlobInfo[]
}

/**
 * Lays layers over each other, lowest first, into one image that shows what overlayfs would: deletion markers act on what lies below and are gone, also
 * those of the lowest layer, which delete nothing. Hard links stay within their layer. Throws BuilderError 'INCONSISTENT' when layers disagree in what an image has once,
 * 'BAD_LAYER' for a layer with more than one blob of its own. It empties `layers`: the memory of a bootstrap is free once its tree was read, unless the caller holds it.
 */
export function mergeImages(layers: MergeLayer[], options: MergeOptions): MergedImage {
  const [of, last] = checkLayers(layers, options)
  const { files, root, blobs } = mergedTree(layers, options)
  const prefetch = prefetchNodes(files, root, options.prefetchPaths)
  files.closeIndex()
  const bootstrap = writeTree(
    { files, root, blobs },
    {
      version: of.version,
      chunkSize: of.chunkSize,
      compression: compressionOf(last, blobs),
      digest: digestOf(last, blobs),
      explicitOwners: last.explicitOwners,
      alwaysXattrs: true,
      prefetch,
      source: 'archive',
      isTarfs: of.isTarfs,
    },
  )
  return { bootstrap, blobs }
}

/** What is asked of a layer's image once its tree was read. */
type ImageFacts = Pick<Bootstrap, 'version' | 'chunkSize' | 'explicitOwners' | 'isTarfs' | 'blobs'>

/** All layers before anything else: who merges forgets a cache then, and tries again. Gives what is to be known of the first and the last. */
function checkLayers(layers: readonly MergeLayer[], options: MergeOptions): readonly [ImageFacts, ImageFacts] {
  const [first] = layers
  if (first === undefined)
    throw new BuilderError('BAD_OPTION', 'source bootstrap list is empty , at least one bootstrap is required')
  const reference = options.dictionary ?? first.image
  for (const { image } of layers) checkConsistent(reference, image)
  if (first.image.isTarfs) checkTarfs(options)
  return [factsOf(first.image), factsOf((layers.at(-1) ?? first).image)]
}

function factsOf({ version, chunkSize, explicitOwners, isTarfs, blobs }: Bootstrap): ImageFacts {
  return { version, chunkSize, explicitOwners, isTarfs, blobs }
}

/** Takes the layers one by one, so that of their bootstraps nothing is held while the next is read or the whole written. */
function mergedTree(layers: MergeLayer[], options: MergeOptions): RafsFiles {
  const table = new MergeTable(new Set(options.dictionary?.blobs.map(({ id }) => id)))
  const { files } = table
  let root: NodeId | undefined
  if (options.parent !== undefined) {
    if (options.parent.isTarfs)
      throw new BuilderError('BAD_OPTION', 'the parent bootstrap is over plain tars, which no other layers can lie on')
    root = table.load(options.parent, undefined)
  }
  for (let layer = layers.shift(); layer !== undefined; layer = layers.shift()) {
    const upper = table.load(layer.image, layer)
    root ??= emptyRoot(files, upper)
    overlay(files, root, upper, options.whiteoutSpec)
    options.onLayer?.()
  }
  if (root === undefined) throw new BuilderError('BAD_OPTION', 'there is nothing to merge')
  return { files, root, blobs: usedBlobs(files, root, table.blobs) }
}

/** The algorithms of an image as a whole are those of its last layer, as its blobs tell them. */
function compressionOf(image: ImageFacts, blobs: readonly BlobInfo[]): CompressionName {
  if (image.isTarfs) return 'none'
  return image.blobs[0]?.compression ?? blobs[0]?.compression ?? 'zstd'
}

function digestOf(image: ImageFacts, blobs: readonly BlobInfo[]): DigestName {
  if (image.isTarfs) return 'sha256'
  return image.blobs[0]?.digest ?? blobs[0]?.digest ?? 'blake3'
}

/** What all images of a merge, or an image and its dictionary or parent, must have in common; in the original's words and order. */
export function checkConsistent(
  reference: Pick<Bootstrap, 'chunkSize' | 'explicitOwners' | 'version' | 'isTarfs'>,
  image: Pick<Bootstrap, 'chunkSize' | 'explicitOwners' | 'version' | 'isTarfs'>,
): void {
  const inconsistent = (text: string): BuilderError =>
    new BuilderError('INCONSISTENT', `Inconsistent RAFS Filesystem: ${text}`)
  if (reference.chunkSize !== image.chunkSize)
    throw inconsistent(`Inconsistent configuration of chunk_size: ${reference.chunkSize} vs ${image.chunkSize}`)
  if (reference.explicitOwners !== image.explicitOwners) {
    throw inconsistent(
      `Using inconsistent explicit_uidgid setting ${reference.explicitOwners}, target explicit_uidgid setting ${image.explicitOwners}`,
    )
  }
  if (reference.version !== image.version)
    throw inconsistent(
      `Using inconsistent RAFS version V${reference.version}, target RAFS version Ok(V${image.version})`,
    )
  if (reference.isTarfs !== image.isTarfs) throw inconsistent('Using inconsistent RAFS TARFS mode')
}

function checkTarfs({ parent, dictionary }: MergeOptions): void {
  const option = parent !== undefined ? '--parent-bootstrap' : dictionary !== undefined ? '--chunk-dict' : undefined
  if (option === undefined) return
  throw new BuilderError('BAD_OPTION', `merging RAFS in TARFS mode conflicts with \`${option}\``)
}

/** Images whose chunks cannot be had, only referred to. Throws BuilderError 'UNSUPPORTED'. */
export function checkReadable(image: Bootstrap, name: string): void {
  if (image.blobs.some(isReference))
    throw new BuilderError(
      'UNSUPPORTED',
      `${name}: OCI reference (zran) images are not supported by this version of nydus-image`,
    )
}

/** A blob of another image, as the table of a new one names it: what lay in the blob is not in it any more as far as the new image is concerned. */
export function importedBlob(blob: BlobInfo, index: number): BlobInfo {
  const imported = { ...blob, index, features: blob.features & ~BLOB_FEATURES.INLINED_FS_META }
  // An inlined bootstrap does not know the digest of the blob that it and the compression context came from: that blob's name is it.
  const isInlined = (blob.features & BLOB_FEATURES.INLINED_FS_META) !== 0
  const { metaBlobId } = blob
  if (!isInlined || !isReference(blob) || metaBlobId === undefined || !/^[0-9a-f]{64}$/.test(metaBlobId))
    return imported
  return { ...imported, metaBlobDigest: Buffer.from(metaBlobId, 'hex') }
}

/** Its data is in the layer itself. */
function isReference({ features }: Pick<BlobInfo, 'features'>): boolean {
  return (features & BLOB_FEATURES.SEPARATE) !== 0
}

/** Trees of all layers; their blobs, each once. */
class MergeTable {
  readonly files = new FileTree()
  readonly blobs: BlobInfo[] = []
  readonly #indexes = new Map<string, number>()
  readonly #dictionaryIds: ReadonlySet<string>

  constructor(dictionaryIds: ReadonlySet<string>) {
    this.#dictionaryIds = dictionaryIds
  }

  /** Reads an image's tree, its chunks renumbered to this table. */
  load(image: Bootstrap, layer: MergeLayer | undefined): NodeId {
    const own = image.blobs.filter(({ id }) => !this.#dictionaryIds.has(id))
    if (layer !== undefined && own.length > 1)
      throw new BuilderError('BAD_LAYER', 'invalid per layer bootstrap, having multiple associated data blobs')
    const indexes = image.blobs.map((blob) =>
      this.#add(blob, layer !== undefined && own.includes(blob) ? layer : undefined),
    )
    return loadFiles(image, this.files, indexes)
  }

  #add(blob: BlobInfo, layer: MergeLayer | undefined): number {
    const known = this.#indexes.get(blob.id)
    if (known !== undefined) {
      checkSame(this.blobs[known], blob)
      return known
    }
    const index = this.blobs.length
    this.#indexes.set(blob.id, index)
    const imported = importedBlob(blob, index)
    const { blobSize } = layer ?? {}
    const own = isReference(blob)
      ? {
          id: layer?.layerId ?? blob.id,
          metaBlobDigest: layer?.metaBlobDigest ?? imported.metaBlobDigest,
          metaBlobSize: blobSize ?? imported.metaBlobSize,
        }
      : { id: layer?.blobId ?? blob.id, compressedSize: blobSize ?? blob.compressedSize }
    const toc = { tocDigest: layer?.tocDigest ?? blob.tocDigest, tocSize: layer?.tocSize ?? blob.tocSize }
    this.blobs.push({ ...imported, ...own, ...toc })
    return index
  }
}

/** Ids may be chosen freely, of plain tars by who builds and of all blobs by who merges: two that are called alike must be one. */
function checkSame(known: BlobInfo | undefined, { id, digest, chunkCount, uncompressedSize }: BlobInfo): void {
  if (known?.digest !== digest)
    throw new BuilderError(
      'BAD_LAYER',
      `blob ${id} is digested with ${known?.digest} in one layer and with ${digest} in another: build both with the same --digester`,
    )
  if (known.chunkCount === chunkCount && known.uncompressedSize === uncompressedSize) return
  throw new BuilderError('BAD_LAYER', `two layers have the blob id ${id}, and different blobs: give each its own`)
}

/** Renumbers chunks so that blobs come in the order in which the tree uses them; blobs that it does not use fall away. */
function usedBlobs(files: FileTree, root: NodeId, blobs: readonly BlobInfo[]): BlobInfo[] {
  const used: BlobInfo[] = []
  const byId = new Map<string, number>()
  for (const id of usedChunks(files, root)) {
    const chunk = files.chunks.at(id)
    const blob = blobs[chunk.blobIndex]
    if (blob === undefined)
      throw new BuilderError('BAD_LAYER', `a chunk names blob ${chunk.blobIndex} of ${blobs.length}`)
    let index = byId.get(blob.id)
    if (index === undefined) {
      index = used.length
      byId.set(blob.id, index)
      used.push({ ...blob, index })
    } else checkSame(used[index], blob)
    chunk.blobIndex = index
  }
  return used
}
