import type { Backend } from '../backend/index.ts'
import { BlobError, type BlobInfo } from '../blob/index.ts'
import { CacheError, readBlobMeta, writeBlobMeta } from '../cache/index.ts'
import { deadlineSignal } from '../kernel/index.ts'

const READ_DEADLINE_MS = 30_000

/** How a kind of blob reads its compression context. */
export interface ContextKind<T> {
  /** The blob that the context lies in. */
  readonly storedIn: string
  /** Bytes of the cache's file. */
  readonly fileSize: number
  /** Fetches it in the form of the cache's file. */
  readonly fetch: (read: (offset: number, into: Uint8Array) => Promise<void>) => Promise<Uint8Array>
  /** Throws BlobError for one that does not fit the image. */
  readonly parse: (file: Uint8Array) => T
}

/** Reads a blob's compression context from the cache's folder, or from the backend, and keeps it; `closing` ends the wait for it. Throws BlobError, CodecError or BackendError. */
export async function openContext<T>(
  blob: BlobInfo,
  kind: ContextKind<T>,
  backend: Backend,
  cacheDirectory: string | undefined,
  closing?: AbortSignal,
): Promise<T> {
  const kept = cacheDirectory === undefined ? undefined : await readKept(cacheDirectory, blob, kind)
  if (kept !== undefined) return kept
  const reader = await backend.open(kind.storedIn)
  try {
    const deadline = deadlineSignal(READ_DEADLINE_MS)
    const signal = closing === undefined ? deadline : AbortSignal.any([deadline, closing])
    const bytes = await kind.fetch((offset, into) => reader.read(offset, into, { signal }))
    const context = kind.parse(bytes)
    if (cacheDirectory !== undefined) await keep(cacheDirectory, blob, bytes)
    return context
  } finally {
    await reader.close()
  }
}

/** Undefined also for one that does not fit the image: it is fetched again then. */
async function readKept<T>(directory: string, blob: BlobInfo, kind: ContextKind<T>): Promise<T | undefined> {
  const bytes = await readBlobMeta(directory, blob.id, kind.fileSize)
  if (bytes === undefined) return undefined
  try {
    return kind.parse(bytes)
  } catch (error) {
    if (error instanceof BlobError) return undefined
    throw error
  }
}

/** A cache that cannot take it is no reason to fail: the next start fetches it again. */
async function keep(directory: string, blob: BlobInfo, bytes: Uint8Array): Promise<void> {
  try {
    await writeBlobMeta(directory, blob.id, bytes)
  } catch (error) {
    if (!(error instanceof CacheError)) throw error
  }
}
