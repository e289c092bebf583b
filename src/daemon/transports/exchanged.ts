import {
  ERRNO,
  FILE_OPCODE,
  type FuseReply,
  type FuseRequest,
  LSEEK_IN,
  OPCODE,
  OPEN_IN,
  OPENED,
} from '../../kernel/index.ts'

const SEEK_DATA = 3
const CHANGING: ReadonlySet<number> = new Set([
  FILE_OPCODE.SETATTR,
  FILE_OPCODE.SYMLINK,
  FILE_OPCODE.MKNOD,
  FILE_OPCODE.MKDIR,
  FILE_OPCODE.UNLINK,
  FILE_OPCODE.RMDIR,
  FILE_OPCODE.RENAME,
  FILE_OPCODE.LINK,
  FILE_OPCODE.WRITE,
  FILE_OPCODE.SETXATTR,
  FILE_OPCODE.REMOVEXATTR,
  FILE_OPCODE.CREATE,
  FILE_OPCODE.FALLOCATE,
  FILE_OPCODE.RENAME2,
  FILE_OPCODE.COPY_FILE_RANGE,
  FILE_OPCODE.TMPFILE,
])

/**
 * What an image or a directory above the mounts answers where the session exchanges opens, because other mounts of it need them: ENOSYS would end the operation for those too. `size` of
 * the file, bytes, for SEEK_DATA and SEEK_HOLE.
 */
export function answerExchanged(request: FuseRequest, reply: FuseReply, size: () => number): number {
  switch (request.opcode) {
    case OPCODE.OPEN:
      return (request.word(OPEN_IN.flags) & 3) === 0 ? reply.opened(OPENED.KEEP_CACHE) : -ERRNO.EROFS
    case OPCODE.OPENDIR:
      return reply.opened(OPENED.KEEP_CACHE | OPENED.CACHE_DIR)
    case OPCODE.RELEASE:
    case OPCODE.RELEASEDIR:
    case OPCODE.FLUSH:
    case FILE_OPCODE.FSYNC:
    case FILE_OPCODE.FSYNCDIR:
      return 0
    case OPCODE.LSEEK:
      return seek(request, reply, size())
    default:
      return CHANGING.has(request.opcode) ? -ERRNO.EROFS : -ERRNO.ENOSYS
  }
}

/** All is data up to the end, and the end is a hole. */
function seek(request: FuseRequest, reply: FuseReply, size: number): number {
  const offset = request.word(LSEEK_IN.offset) + request.word(LSEEK_IN.offset + 4) * 2 ** 32
  if (offset >= size) return -ERRNO.ENXIO
  return reply.position(request.word(LSEEK_IN.whence) === SEEK_DATA ? offset : size)
}
