import { BlobError, type BlobErrorCode } from '../blob/index.ts'
import { CodecError } from '../codec/index.ts'
import { RafsError, type RafsErrorCode } from '../rafs/index.ts'
import { TarError } from '../tar/index.ts'

/** What can go wrong in the builder, for programs; the message is for people. */
export type BuilderErrorCode =
  /** An option has a value that cannot be used, or two options contradict each other. */
  | 'BAD_OPTION'
  /** An option asks for what this version does not do; the message names it. */
  | 'UNSUPPORTED'
  /** The source cannot be read, or holds what no image can hold (a `..` path, a link to nothing). */
  | 'BAD_SOURCE'
  /** A file of the source changed while it was read. */
  | 'SOURCE_CHANGED'
  /** The source is larger than the format can express. */
  | 'TOO_LARGE'
  /** A bootstrap that was given cannot be used here (more than one own blob, wrong count of ids). */
  | 'BAD_LAYER'
  /** A database of chunks cannot be opened, read or written, or says what cannot be. */
  | 'BAD_DATABASE'
  /** Bootstraps that were given disagree in chunk size, version, owners or digest; the original's exit code 2. */
  | 'INCONSISTENT'
  /** Output could not be written; nothing was left behind. */
  | 'OUTPUT'
  /** What was written does not read back as what was meant: a bug or a broken disk. Nothing was published. */
  | 'READBACK'
  | 'ABORTED'

export class BuilderError extends Error {
  override readonly name = 'BuilderError'
  readonly code: BuilderErrorCode

  constructor(code: BuilderErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** An error of a room below as one of this room's, with the same message; others are given back as they are. */
export function coded(error: unknown): unknown {
  if (error instanceof TarError) return new BuilderError('BAD_SOURCE', error.message, { cause: error })
  if (error instanceof RafsError || error instanceof BlobError)
    return new BuilderError(codeOf(error.code), error.message, { cause: error })
  if (error instanceof CodecError) return new BuilderError('UNSUPPORTED', error.message, { cause: error })
  return error
}

function codeOf(code: RafsErrorCode | BlobErrorCode): BuilderErrorCode {
  if (code === 'TOO_LARGE') return code
  // What a full disk did is no bug of ours.
  return code === 'NO_SPACE' ? 'OUTPUT' : 'READBACK'
}
