/**
 * `NOT_RAFS`: no known magic. `BAD_SUPERBLOCK`, `BAD_TABLE`, `BAD_INODE`, `BAD_DIRECTORY`, `BAD_CHUNK`, `BAD_XATTR`: that part contradicts the format or itself. `OUT_OF_RANGE`: a position outside
 * the bootstrap. `UNSUPPORTED`: valid, but not what this version reads or writes. `TOO_LARGE`: the format cannot hold it. `NOT_FOUND`: no such inode.
 */
export type RafsErrorCode =
  | 'NOT_RAFS'
  | 'BAD_SUPERBLOCK'
  | 'BAD_TABLE'
  | 'BAD_INODE'
  | 'BAD_DIRECTORY'
  | 'BAD_CHUNK'
  | 'BAD_XATTR'
  | 'OUT_OF_RANGE'
  | 'UNSUPPORTED'
  | 'TOO_LARGE'
  | 'NOT_FOUND'

/** A bootstrap that cannot be read or written. */
export class RafsError extends Error {
  override readonly name = 'RafsError'
  readonly code: RafsErrorCode

  constructor(code: RafsErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
