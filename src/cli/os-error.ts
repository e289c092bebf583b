import { constants } from 'node:os'

/** The words of the C library for the commonest errors; programs and people know them from there. */
const WORDS: Readonly<Record<string, string>> = {
  ENOENT: 'No such file or directory',
  EACCES: 'Permission denied',
  EPERM: 'Operation not permitted',
  EISDIR: 'Is a directory',
  ENOTDIR: 'Not a directory',
  ENOSPC: 'No space left on device',
  EROFS: 'Read-only file system',
  EIO: 'Input/output error',
  ELOOP: 'Too many levels of symbolic links',
  ENAMETOOLONG: 'File name too long',
  ECONNREFUSED: 'Connection refused',
  ECONNRESET: 'Connection reset by peer',
  EPIPE: 'Broken pipe',
  EINVAL: 'Invalid argument',
}

/** A system's error in the original's words: `No such file or directory (os error 2)`; any other as it is. */
export function osError(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? ''
  const words = WORDS[code]
  if (words !== undefined) return `${words} (os error ${constants.errno[code as keyof typeof constants.errno]})`
  return error instanceof Error ? error.message : String(error)
}
