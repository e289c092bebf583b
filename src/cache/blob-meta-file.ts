import { readFileSync, statSync } from 'node:fs'
import { cachePath, placeFile } from './cache-files.ts'
import { cacheError, errnoName } from './errors.ts'

/**
 * Keeps a blob's compression context (chunk infos, padding, header: the form of docs/formats/blob.md, "Compression context") as `<id>.blob.meta`, whole or not at all.
 * Upstream's daemon reads the same file. Throws CacheError.
 */
export async function writeBlobMeta(directory: string, blobId: string, bytes: Uint8Array): Promise<void> {
  const path = cachePath(directory, blobId, 'meta')
  try {
    placeFile(path, [bytes], 'replace')
  } catch (error) {
    throw cacheError(error, `cannot write ${path}`)
  }
}

/**
 * The kept compression context, unchecked: whoever asks compares it with the bootstrap. Undefined when there is none or it has not `size` bytes
 * (upstream makes the file empty first and fills it then). Throws CacheError.
 */
export async function readBlobMeta(directory: string, blobId: string, size: number): Promise<Uint8Array | undefined> {
  const path = cachePath(directory, blobId, 'meta')
  try {
    const found = statSync(path)
    if (!found.isFile() || found.size !== size) return undefined
    const bytes = readFileSync(path)
    return bytes.length === size ? bytes : undefined
  } catch (error) {
    if (errnoName(error) === 'ENOENT') return undefined
    throw cacheError(error, `cannot read ${path}`)
  }
}
