import type { BlobInfo } from '../blob/index.ts'
import { type ChunkId, FileTree, loadFiles, type NodeId, type RafsChunk } from '../rafs/index.ts'
import { ChunkCopier, type CopiedImage } from './chunk-copier.ts'
import { BuilderError, coded } from './errors.ts'
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
  { files: wanted, bootstrapPath, blobFolder }: OptimizeOptions,
): Promise<OptimizedImage> {
  const { image, signal } = from
  if (image.isTarfs) throw new BuilderError('UNSUPPORTED', 'tarfs images have no chunks that could be copied')
  const files = new FileTree()
  const root = loadFiles(image, files, [...image.blobs.keys()])
  const known = image.blobs.map(importedBlob)
  const { chosen, skipped } = choose(files, root, wanted, image.chunkSize)
  const chunks = [...new Set(chosen.map((place) => files.chunks.use(place)))]
  if (chunks.length === 0) {
    await publishImage([], rewriteImage(image, { files, root, blobs: known }), { bootstrapPath, signal })
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
    const stored = chunks.map((id) => files.chunks.at(id))
    const copied = await blob.write(stored, copier)
    useCopies(files, chosen, new Map(chunks.map((id, at) => [id, copied[at]])))
    const blobs = [...known, blob.info]
    await publishImage([blob], rewriteImage(image, { files, root, blobs }), { bootstrapPath, signal })
    return { blobs, hasNewBlob: true, skipped }
  } finally {
    await copier.close()
    await blob.discard()
  }
}

/** Places in the list of chunks whose chunks are to be copied, each once, in the order of the list of files. Names of one file have their places together. */
function choose(
  files: FileTree,
  root: NodeId,
  wanted: readonly PrefetchFile[],
  chunkSize: number,
): { readonly chosen: readonly number[]; readonly skipped: string[] } {
  const chosen = new Map<NodeId, Set<number>>()
  const skipped: string[] = []
  for (const { path, ranges } of wanted) {
    const id = fileAt(files, root, path)
    if (id === 0 || !files.isFile(id)) {
      skipped.push(path)
      continue
    }
    const places = chosen.get(files.inode(id)) ?? new Set<number>()
    chosen.set(files.inode(id), places)
    const { start, count } = files.chunkList(id)
    for (let at = 0; at < count; at += 1) {
      const { uncompressedSize } = files.chunks.at(files.chunk(id, at))
      if (ranges?.some((range) => touches(range, at * chunkSize, uncompressedSize)) !== false) places.add(start + at)
    }
  }
  return { chosen: [...chosen.values()].flatMap((places) => [...places]), skipped }
}

/** 0 when there is none. */
function fileAt(files: FileTree, root: NodeId, path: string): NodeId {
  let id = root
  for (const name of path.split('/').filter((part) => part !== '' && part !== '.'))
    if (id !== 0) id = files.find(id, Buffer.from(name).toString('latin1'))
  return id
}

/** Puts the copies of chunks into the places that were chosen; chunks that became one copy are one. */
function useCopies(
  files: FileTree,
  places: readonly number[],
  copies: ReadonlyMap<ChunkId, RafsChunk | undefined>,
): void {
  const ids = new Map<RafsChunk, ChunkId>()
  for (const place of places) {
    const copy = copies.get(files.chunks.use(place))
    if (copy === undefined) continue
    const id = ids.get(copy) ?? files.chunks.add(copy)
    ids.set(copy, id)
    files.chunks.setUse(place, id)
  }
}
