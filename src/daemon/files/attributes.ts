import {
  changeMode,
  changeOwnerOf,
  changeTimes,
  closeFd,
  ERRNO,
  type FileReply,
  type FileRequest,
  O,
  reopen,
  SET,
  SETATTR_IN,
  statFileSystem,
  truncateFd,
  TYPE,
} from '../../kernel/index.ts'

const UNCHANGED = 0xffff_ffff
const [UTIME_NOW, UTIME_OMIT] = [0x3fff_ffff, 0x3fff_fffe]

/**
 * SETATTR on a file of the host: `fd` names it, `open` is a descriptor that can be written to, if there is one. Owner before mode, since changing the one takes set-user-id bits away. 0 or minus an errno.
 */
export function setAttributes(request: FileRequest, fd: number, type: number, open: number | undefined): number {
  const valid = request.word(0)
  if ((valid & (SET.UID | SET.GID)) !== 0) {
    const uid = (valid & SET.UID) === 0 ? UNCHANGED : request.word(SETATTR_IN.uid)
    const gid = (valid & SET.GID) === 0 ? UNCHANGED : request.word(SETATTR_IN.gid)
    const failed = changeOwnerOf(fd, uid, gid)
    if (failed < 0) return failed
  }
  if ((valid & SET.MODE) !== 0 && type !== TYPE.LINK) {
    const failed = changeMode(fd, request.word(SETATTR_IN.mode) & 0o7777)
    if (failed < 0) return failed
  }
  if ((valid & SET.SIZE) !== 0) {
    const failed = resize(fd, request.number(SETATTR_IN.length), open)
    if (failed < 0) return failed
  }
  return (valid & (SET.ATIME | SET.MTIME)) === 0 ? 0 : changeTimes(fd, timesOf(request))
}

function resize(fd: number, length: number, open: number | undefined): number {
  if (open !== undefined) {
    const result = truncateFd(open, length)
    if (result !== -ERRNO.EINVAL) return result // else it was opened for reading only
  }
  const writer = reopen(fd, O.WRONLY)
  if (writer < 0) return writer
  const result = truncateFd(writer, length)
  closeFd(writer)
  return result
}

/** STATFS of the file system of a descriptor. */
export function fileSystemOf(fd: number, reply: FileReply): number {
  const found = new Uint8Array(120) // struct statfs
  const failed = statFileSystem(fd, found)
  return failed < 0 ? failed : reply.statfs(found)
}

/** Two `struct timespec`. */
function timesOf(request: FileRequest): Uint8Array {
  const valid = request.word(SETATTR_IN.valid)
  const times = Buffer.alloc(32)
  const put = (at: number, set: number, now: number, seconds: number, nsec: number): void => {
    const isSet = (valid & set) !== 0
    if (isSet && (valid & now) === 0) {
      times.writeBigInt64LE(request.signed(seconds), at)
      times.writeBigInt64LE(BigInt(request.word(nsec)), at + 8)
    } else times.writeBigInt64LE(BigInt(isSet ? UTIME_NOW : UTIME_OMIT), at + 8)
  }
  put(0, SET.ATIME, SET.ATIME_NOW, SETATTR_IN.atime, SETATTR_IN.atimeNsec)
  put(16, SET.MTIME, SET.MTIME_NOW, SETATTR_IN.mtime, SETATTR_IN.mtimeNsec)
  return times
}
