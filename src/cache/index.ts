/** The cache room: verified chunks on disk, in files shared with other processes and with upstream's daemon. */
export { readBlobMeta, writeBlobMeta } from './blob-meta-file.ts'
export type { ChunkCache } from './chunk-cache.ts'
export type { MapLock } from './chunk-map.ts'
export type { ChunkCacheOptions } from './disk-chunk-cache.ts'
export { openChunkCache } from './disk-chunk-cache.ts'
export type { CacheErrorCode } from './errors.ts'
export { CacheError } from './errors.ts'
export { TarFile } from './tar-file.ts'
