import {
  allocate,
  appendFd,
  closeFd,
  copyRange,
  COPY_IN,
  ERRNO,
  FALLOCATE_IN,
  type FileReply,
  type FileRequest,
  FSYNC_IN,
  HANDLE_AT,
  LSEEK_IN,
  O,
  readFd,
  READ_IN,
  seekFd,
  SYNC_DATA_ONLY,
  syncFd,
  WRITE_IN,
  WRITE_KEPT,
  writeFd,
} from '../../kernel/index.ts'

/** An open file or directory: `N` is what the file system knows of it, `L` how it lists directories. */
export interface OpenFile<N, L> {
  readonly node: N
  /** -1: the file cannot be reached by a descriptor of the host (it lies in an image). */
  fd: number
  /** As of open(2). */
  readonly flags: number
  /** Of a directory: how far it was read. */
  readonly listing?: L
}

/** The open files of one mount, by the handles that the kernel has of them, and the calls that need nothing but a descriptor. */
export class OpenFiles<N, L> {
  readonly #files = new Map<number, OpenFile<N, L>>()
  #last = 0

  /** Gives the handle; never 0. */
  add(file: OpenFile<N, L>): number {
    this.#files.set(++this.#last, file)
    return this.#last
  }

  get(handle: number): OpenFile<N, L> | undefined {
    return this.#files.get(handle)
  }

  release(handle: number): number {
    const file = this.#files.get(handle)
    if (file !== undefined && file.fd >= 0) closeFd(file.fd)
    this.#files.delete(handle)
    return 0
  }

  end(): void {
    for (const handle of this.#files.keys()) this.release(handle)
  }
}

/** READ into the reply: reads until the count is there or the file ends. */
export function readOpen(fd: number, request: FileRequest, reply: FileReply): number {
  const offset = request.number(READ_IN.offset)
  const count = reply.room(request.word(READ_IN.count)).length
  let done = 0
  while (done < count) {
    const got = readFd(fd, reply.bodyAddress + done, count - done, offset + done)
    if (got === -ERRNO.EINTR) continue
    if (got < 0) return done > 0 ? done : got
    if (got === 0) break
    done += got
  }
  return done
}

/** WRITE: the bytes that were written are told, fewer than given when the disk is full. */
export function writeOpen(fd: number, request: FileRequest, reply: FileReply): number {
  const count = request.word(WRITE_IN.count)
  const data = request.data(WRITE_IN.size, count)
  const offset = request.number(WRITE_IN.offset)
  // Others of the host may have made the file longer than the asking kernel knows. Kept pages know their place.
  const appends =
    (request.word(WRITE_IN.flags) & O.APPEND) !== 0 && (request.word(WRITE_IN.writeFlags) & WRITE_KEPT) === 0
  let done = 0
  do {
    const rest = data.subarray(done)
    const put = appends ? appendFd(fd, rest) : writeFd(fd, rest, offset + done)
    if (put === -ERRNO.EINTR) continue
    if (put < 0) return done > 0 ? reply.count(done) : put
    done += put
  } while (done < count)
  return reply.count(done)
}

export function syncOpen(fd: number, request: FileRequest): number {
  return syncFd(fd, (request.word(FSYNC_IN.flags) & SYNC_DATA_ONLY) !== 0)
}

export function allocateOpen(fd: number, request: FileRequest): number {
  const [offset, length] = [request.number(FALLOCATE_IN.offset), request.number(FALLOCATE_IN.length)]
  return allocate(fd, request.word(FALLOCATE_IN.mode), offset, length)
}

/** SEEK_DATA and SEEK_HOLE; the other ways the kernel does by itself. */
export function seekOpen(fd: number, request: FileRequest, reply: FileReply): number {
  const found = seekFd(fd, request.number(LSEEK_IN.offset), request.word(LSEEK_IN.whence))
  return found < 0 ? found : reply.offset(found)
}

export function copyOpen(from: number, to: number, request: FileRequest, reply: FileReply): number {
  const most = 0x7fff_f000 // what one call of the kernel copies, and what 32 bits of the answer hold
  const length = Math.min(request.number(COPY_IN.length), most)
  const copied = copyRange(from, request.number(COPY_IN.offset), to, request.number(COPY_IN.toOffset), length)
  return copied < 0 ? copied : reply.count(copied)
}

/** The handle that most requests begin with. */
export function handleOf(request: FileRequest): number {
  return request.number(HANDLE_AT)
}

/**
 * What CREATE is answered with when the file could not be made. The kernel takes what CREATE gives it for the asker's own, new and empty. So when somebody of the host was first, the kernel must look
 * again (ESTALE makes it), and ask whether this file may be opened and truncated.
 */
export function lateName(errno: number, flags: number): number {
  return errno === -ERRNO.EEXIST && (flags & O.EXCL) === 0 ? -ERRNO.ESTALE : errno
}

/** Flags with which the host's file is opened for the kernel's: truncation comes as a request of its own, appending with each write, and direct I/O ends in the asking kernel. */
export function hostFlags(flags: number): number {
  const KEPT = O.ACCMODE | 0o4010000 /* O_SYNC, O_DSYNC */ | 0o1000000 /* O_NOATIME */
  return flags & KEPT
}
