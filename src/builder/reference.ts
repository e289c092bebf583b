import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { type BlobInfo, ChunkInfo } from '../blob/index.ts'
import {
  type Bootstrap,
  type ChunkId,
  type FileTree,
  loadFiles,
  type NodeId,
  openBootstrap,
  RafsError,
} from '../rafs/index.ts'
import { ChunkDictionary, type KnownChunk } from './dictionary.ts'
import { BuilderError } from './errors.ts'
import type { LayerOptions } from './layer-options.ts'
import { checkConsistent, importedBlob } from './merge.ts'
import { usedChunks } from './file-order.ts'

type Wanted = Pick<LayerOptions, 'version' | 'chunkSize' | 'keepOwners' | 'digest'>

/** No bootstrap is larger; a blob may be. */
const MAX_BOOTSTRAP_BYTES = 0x4000_0000

/**
 * Opens a bootstrap whose chunks need not be stored again. Its blobs are not needed. Throws BuilderError: 'BAD_LAYER' for a file that is no bootstrap, 'INCONSISTENT' when
 * its chunk size, version or owners are not those of the build, 'UNSUPPORTED' for kinds of blobs that cannot be referred to.
 */
export async function openDictionary(path: string, options: Wanted): Promise<ChunkDictionary> {
  const image = await openReference(path, options)
  return new ChunkDictionary(image.blobs, dictionaryChunks(image, options.digest))
}

/** Opens the bootstrap of the image that a layer is laid over. Throws as `openDictionary` does. */
export async function openParent(path: string, options: Wanted): Promise<Bootstrap> {
  return await openReference(path, options)
}

async function openReference(path: string, { version, chunkSize, keepOwners }: Wanted): Promise<Bootstrap> {
  const image = openNamed(await readReference(path), path)
  checkConsistent({ chunkSize, explicitOwners: keepOwners, version, isTarfs: false }, image)
  return image
}

async function readReference(path: string): Promise<Uint8Array> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK) // a FIFO there must not hang us
    const stats = await file.stat()
    if (!stats.isFile() && !stats.isDirectory()) throw new Error('it is not a regular file')
    if (stats.size > MAX_BOOTSTRAP_BYTES)
      throw new Error(`it has ${stats.size} bytes, more than any bootstrap; is it a data blob?`)
    return await file.readFile()
  } catch (cause) {
    throw new BuilderError(
      'BAD_LAYER',
      `cannot read the bootstrap ${path}: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    )
  }
}

/** An inlined bootstrap does not know its blob's id: the name of its file, up to the first dot, is it. */
function openNamed(bytes: Uint8Array, path: string): Bootstrap {
  const inlinedBlobId = basename(path).split('.')[0]
  try {
    return openBootstrap(bytes, { inlinedBlobId })
  } catch (cause) {
    if (!(cause instanceof RafsError)) throw cause
    throw new BuilderError('BAD_LAYER', `cannot use the bootstrap ${path}: ${cause.message}`, { cause })
  }
}

/** Chunks of all blobs that were digested in the build's way, blob by blob. */
function* dictionaryChunks(image: Bootstrap, digest: LayerOptions['digest']): Generator<KnownChunk> {
  for (const blob of image.blobs) {
    if (blob.digest !== digest) continue
    const layout = image.layout(blob.index)
    for (let index = layout.next(0); index < layout.chunkCount; index = layout.next(index + 1)) {
      const chunk = new ChunkInfo()
      layout.chunk(index, chunk)
      yield Object.assign(chunk, { blobIndex: blob.index })
    }
  }
}

/** A parent image as the lower tree, and what of its data may be used again. */
export function loadParent(
  parent: Bootstrap,
  files: FileTree,
): { readonly root: NodeId; readonly blobs: readonly BlobInfo[]; readonly chunks: Iterable<ChunkId> } {
  const blobs = parent.blobs.map(importedBlob)
  const root = loadFiles(
    parent,
    files,
    blobs.map(({ index }) => index),
  )
  return { root, blobs, chunks: usedChunks(files, root) }
}
