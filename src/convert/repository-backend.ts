import type { Backend, BlobReader } from '../backend/index.ts'
import { type Repository, sha256Digest } from '../registry/index.ts'

/** The blobs of a repository, read with the logins and connections of its client; both stay open when this is closed. */
export function repositoryBackend(repository: Repository): Backend {
  return {
    name: 'registry',
    open: async (blobId): Promise<BlobReader> => {
      const digest = sha256Digest(blobId)
      return {
        size: (signal) => repository.blobSize(digest, { signal }),
        read: (compressedOffset, into, options) => repository.readRange(digest, compressedOffset, into, options),
        close: async () => undefined,
      }
    },
    close: async () => undefined,
  }
}
