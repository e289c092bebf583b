import type { Backend } from '../backend/index.ts'
import {
  BLOB_FEATURES,
  type BlobInfo,
  checkPlainMeta,
  hasPlainMeta,
  plainMetaFileSize,
  readPlainMeta,
} from '../blob/index.ts'
import { openContext } from './blob-context.ts'
import type { Clock } from './clock.ts'
import type { Schedule } from './schedule.ts'

/** Blobs whose context is read and kept when they are opened, and those that have none. */
const OTHERS = BLOB_FEATURES.ZRAN | BLOB_FEATURES.BATCH | BLOB_FEATURES.TARFS
const TRIES = 5
const FIRST_PAUSE_MS = 400

export interface ContextKeeper {
  readonly backend: Backend
  readonly cacheDirectory: string
  readonly schedule: Schedule
  readonly clock: Clock
  readonly signal: AbortSignal
}

/**
 * Keeps the compression contexts of plain blobs in the cache directory, where upstream's daemon and the kernel's tools look for them. Fetched while nobody waits for anything; one that cannot be had is
 * given up after a while: the next mount tries again.
 */
export async function keepContexts(blobs: readonly BlobInfo[], keeper: ContextKeeper): Promise<void> {
  for (const blob of blobs) {
    if ((blob.features & OTHERS) !== 0 || !hasPlainMeta(blob)) continue
    const storedIn = (blob.features & BLOB_FEATURES.SEPARATE) === 0 ? blob.id : blob.metaBlobId
    if (storedIn !== undefined) await keepContext(blob, storedIn, keeper)
  }
}

async function keepContext(blob: BlobInfo, storedIn: string, keeper: ContextKeeper): Promise<void> {
  const { backend, cacheDirectory, schedule, clock, signal } = keeper
  for (let attempt = 0; attempt < TRIES && !signal.aborted; attempt += 1) {
    try {
      const fileSize = plainMetaFileSize(blob)
      const place = await schedule.startPrefetch(blob.metaCompressedSize, fileSize, signal)
      try {
        const kind = {
          storedIn,
          fileSize,
          fetch: (read: (offset: number, into: Uint8Array) => Promise<void>) => readPlainMeta(blob, read),
          parse: (file: Uint8Array) => {
            checkPlainMeta(file, blob)
            return true
          },
        }
        await openContext(blob, kind, backend, cacheDirectory, signal)
        return
      } finally {
        place.end()
      }
    } catch {
      if (attempt + 1 < TRIES) await clock.sleep(FIRST_PAUSE_MS * 2 ** attempt, signal).catch(() => undefined) // aborted: the loop ends
    }
  }
}
