import {
  ERRNO,
  type FileReply,
  type FileRequest,
  getXattrOf,
  listXattrsOf,
  removeXattrOf,
  SETXATTR_IN,
  setXattrOf,
  XATTR_IN,
} from '../../kernel/index.ts'

/** GETXATTR on a file of the host: an empty place asks for the size. */
export function getXattr(fd: number, request: FileRequest, reply: FileReply): number {
  const name = request.text(XATTR_IN.size)
  const room = request.word(XATTR_IN.count)
  const got = getXattrOf(fd, name, reply.room(room))
  return room === 0 && got >= 0 ? reply.count(got) : got
}

/** LISTXATTR. `isHidden` leaves names out. */
export function listXattrs(
  fd: number,
  request: FileRequest,
  reply: FileReply,
  isHidden: (name: Uint8Array) => boolean,
): number {
  const room = request.word(XATTR_IN.count)
  const found = listXattrsOf(fd, LIST)
  return found < 0 ? found : answerNames(shownNames(LIST.subarray(0, found), isHidden), room, reply)
}

const LIST = new Uint8Array(65536)

/** Names with their NULs, one after another. */
export function answerNames(names: Uint8Array, room: number, reply: FileReply): number {
  if (room === 0) return reply.count(names.length)
  return names.length > room ? -ERRNO.ERANGE : reply.data(names)
}

/** The list without what is hidden. */
function shownNames(list: Uint8Array, isHidden: (name: Uint8Array) => boolean): Uint8Array {
  const shown: Uint8Array[] = []
  for (let from = 0; from < list.length; ) {
    const end = list.indexOf(0, from) + 1
    if (end === 0) break
    const name = list.subarray(from, end)
    if (!isHidden(name.subarray(0, -1))) shown.push(name)
    from = end
  }
  return Buffer.concat(shown)
}

export function setXattr(fd: number, request: FileRequest): number {
  const name = request.text(SETXATTR_IN.size)
  const value = request.data(SETXATTR_IN.size + name.length, request.word(SETXATTR_IN.count))
  return setXattrOf(fd, name, value, request.word(SETXATTR_IN.flags))
}

export function removeXattr(fd: number, request: FileRequest): number {
  return removeXattrOf(fd, request.text(0))
}
