import type { BlobInfo } from '../blob/index.ts'
import { findChild, type RafsNode, readTree } from '../rafs/index.ts'
import { ChunkCopier, type CopiedImage } from './chunk-copier.ts'
import { BuilderError, coded } from './errors.ts'
import { FILE_TYPES } from './layer-tree.ts'
import { importedBlob } from './merge.ts'
import { NewBlob, publishImage } from './new-blob.ts'
import { type PrefetchFile, touches } from './prefetch-files.ts'
import { cipherOf, compressionFor, rewriteImage } from './rewrite-image.ts'

export interface OptimizeOptions {
  readonly files: readonly PrefetchFile[]
  readonly bootstrapPath: string
  /** Folder for the new blob. */
  readonly blobFolder: string
}

export interface OptimizedImage {
  /** Those of the image, and last the new one. */
  readonly blobs: readonly BlobInfo[]
  /** False: there was nothing to copy, and the image is as it was. */
  readonly hasNewBlob: boolean
  /** Paths that are not in the image, or are no files. */
  readonly skipped: readonly string[]
}

/**
 * Copies the data of files into one new blob, in the order of the list, and writes the image that takes them from there: what is read first lies together. Every chunk is verified on the way, and read back before anything appears.
 * Throws BuilderError, or the signal's reason; nothing is left behind then.
 */
export async function optimizeImage(from: CopiedImage, options: OptimizeOptions): Promise<OptimizedImage> {
  try {
    return await optimize(from, options)
  } catch (error) {
    from.signal.throwIfAborted()
    throw coded(error)
  }
}

async function optimize(
  from: CopiedImage,
  { files, bootstrapPath, blobFolder }: OptimizeOptions,
): Promise<OptimizedImage> {
  const { image, signal } = from
  if (image.isTarfs) throw new BuilderError('UNSUPPORTED', 'tarfs images have no chunks that could be copied')
  const { root } = readTree(image)
  const known = image.blobs.map(importedBlob)
  const groups = linkedNodes(root)
  const { chosen, skipped } = choose(root, files, image.chunkSize)
  const chunks = [
    ...new Set([...chosen].flatMap(([node, numbers]) => [...numbers].map((at) => node.chunks[at]))),
  ].filter((chunk) => chunk !== undefined)
  if (chunks.length === 0) {
    await publishImage([], rewriteImage(image, { root, blobs: known }), { bootstrapPath, signal })
    return { blobs: known, hasNewBlob: false, skipped }
  }
  const blobIndex = known.length
  const blob = await NewBlob.create({
    image,
    blobIndex,
    folder: blobFolder,
    compression: compressionFor(image),
    cipher: cipherOf(image),
    tarHeaders: true,
    signal,
  })
  const copier = new ChunkCopier(from)
  try {
    const copied = await blob.write(chunks, copier)
    const moved = new Map(chunks.map((chunk, at) => [chunk, copied[at] ?? chunk]))
    for (const [node, numbers] of chosen) {
      const own = node.chunks.map((chunk, at) => (numbers.has(at) ? (moved.get(chunk) ?? chunk) : chunk))
      for (const name of groups.get(node) ?? [node]) name.chunks = own
    }
    const blobs = [...known, blob.info]
    await publishImage([blob], rewriteImage(image, { root, blobs }), { bootstrapPath, signal })
    return { blobs, hasNewBlob: true, skipped }
  } finally {
    await copier.close()
    await blob.discard()
  }
}

/** Chunks to copy, by the first name of each file; in the order of the list. */
function choose(
  root: RafsNode,
  files: readonly PrefetchFile[],
  chunkSize: number,
): { readonly chosen: Map<RafsNode, Set<number>>; readonly skipped: string[] } {
  const chosen = new Map<RafsNode, Set<number>>()
  const skipped: string[] = []
  for (const { path, ranges } of files) {
    const node = nodeAt(root, path)
    if (node === undefined || (node.mode & FILE_TYPES.mask) !== FILE_TYPES.file) {
      skipped.push(path)
      continue
    }
    const numbers = chosen.get(node) ?? new Set<number>()
    chosen.set(node, numbers)
    for (const [at, chunk] of node.chunks.entries())
      if (ranges?.some((range) => touches(range, at * chunkSize, chunk.uncompressedSize)) !== false) numbers.add(at)
  }
  return { chosen, skipped }
}

function nodeAt(root: RafsNode, path: string): RafsNode | undefined {
  let node: RafsNode | undefined = root
  for (const name of path.split('/').filter((part) => part !== '' && part !== '.'))
    node = node && findChild(node, Buffer.from(name))
  return node
}

/** All names of nodes that have several. */
function linkedNodes(root: RafsNode): Map<RafsNode, readonly RafsNode[]> {
  const groups = new Map<object, RafsNode[]>()
  const open = [root]
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    for (const child of node.children ?? []) open.push(child)
    if (node.link === undefined) continue
    const known = groups.get(node.link)
    if (known === undefined) groups.set(node.link, [node])
    else known.push(node)
  }
  return new Map([...groups.values()].flatMap((nodes) => nodes.map((node) => [node, nodes] as const)))
}
