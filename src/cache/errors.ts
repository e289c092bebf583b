/**
 * `BAD_OPTION`: a blob id, count or size that no blob has. `NO_SPACE`: the disk, the quota or a file size limit is reached. `READ_ONLY`: the place may not be written.
 * `WRONG_SIZE`: a file is there that cannot belong to this blob. `BAD_MAP`: a chunk map that cannot be brought into order. `OUT_OF_RANGE`: a chunk outside the blob.
 * `IN_USE`: other bytes are there, which another mount of this process shows. `CLOSED`: used after `close`. `IO`: everything else that the file system reported.
 */
export type CacheErrorCode =
  | 'BAD_OPTION'
  | 'NO_SPACE'
  | 'READ_ONLY'
  | 'WRONG_SIZE'
  | 'BAD_MAP'
  | 'OUT_OF_RANGE'
  | 'IN_USE'
  | 'CLOSED'
  | 'IO'

/** A chunk cache that cannot be opened or written. Reads of the image can go on without it: nothing was shown to anybody. */
export class CacheError extends Error {
  override readonly name = 'CacheError'
  readonly code: CacheErrorCode

  constructor(code: CacheErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

const CODES: Readonly<Record<string, CacheErrorCode>> = {
  ENOSPC: 'NO_SPACE',
  EDQUOT: 'NO_SPACE',
  'Unknown system error -122': 'NO_SPACE', // Node's own calls have no name for EDQUOT
  EFBIG: 'NO_SPACE',
  EROFS: 'READ_ONLY',
  EACCES: 'READ_ONLY',
  EPERM: 'READ_ONLY',
}
const STEPS: Partial<Record<CacheErrorCode, string>> = {
  NO_SPACE: '; free space or choose another cache directory (images stay readable, but chunks are fetched again)',
  READ_ONLY: '; choose a cache directory that may be written',
}

/** Gives an error of a file call its code; `what` says what failed, on which file. CacheErrors pass through. */
export function cacheError(error: unknown, what: string): CacheError {
  if (error instanceof CacheError) return error
  const code = CODES[errnoName(error) ?? ''] ?? 'IO'
  const reason = error instanceof Error ? error.message : String(error)
  return new CacheError(code, `${what}: ${reason}${STEPS[code] ?? ''}`, { cause: error })
}

/** `ENOENT` and the like of an error of a file call; undefined for other errors. */
export function errnoName(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}
