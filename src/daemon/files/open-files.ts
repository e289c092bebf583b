import { readSync } from 'node:fs'
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
  reopen,
  seekFd,
  SYNC_DATA_ONLY,
  syncFd,
  WRITE_IN,
  WRITE_KEPT,
  writeFd,
} from '../../kernel/index.ts'
import { requestKey, type RequestNumber } from './files-in-hand.ts'
import type { FilesJournal } from './files-journal.ts'
import { isResent, numberOf } from './request-number.ts'

/** Others may append as much between a write and the look at what became of it. */
const OTHERS_BYTES = 1 << 16

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
export class OpenFiles<N extends { readonly id: number }, L> {
  readonly #files = new Map<number, Kept<N, L>>()
  /** Handles by what asked for them: a request that is handed out again gets the same one, or nobody would ever close the first. */
  readonly #asked = new Map<string, number>()
  #journal: FilesJournal | undefined
  #last = 0

  /** From now on what is open is written there. */
  keepIn(journal: FilesJournal | undefined): void {
    this.#journal = journal
  }

  /** What another process had open, as `reopen` gives it again; undefined = it cannot be had any more. */
  resume(journal: FilesJournal | undefined, reopen: (node: number, flags: number) => OpenFile<N, L> | undefined): void {
    this.#journal = journal
    for (const [handle, { node, flags, request }] of journal?.before.opens ?? []) {
      this.#last = Math.max(this.#last, handle)
      const file = reopen(node, flags)
      if (file !== undefined) this.#keep(handle, { file, request })
    }
  }

  #keep(handle: number, kept: Kept<N, L>): void {
    this.#files.set(handle, kept)
    if (kept.request !== undefined) this.#asked.set(keyOf(kept.request), handle)
  }

  /** Writes all that is open. */
  write(to: FilesJournal): void {
    for (const [handle, { file, request }] of this.#files) to.open(handle, file.node.id, file.flags, request)
  }

  /** Gives the handle; never 0. */
  add(file: OpenFile<N, L>, asked: FileRequest): number {
    const request = numberOf(asked)
    this.#keep(++this.#last, { file, request })
    this.#journal?.open(this.#last, file.node.id, file.flags, request)
    return this.#last
  }

  /** The handle that this request has got already, before it was handed out again. */
  again(request: FileRequest): number | undefined {
    return isResent(request) ? this.#asked.get(keyOf(numberOf(request))) : undefined
  }

  get(handle: number): OpenFile<N, L> | undefined {
    return this.#files.get(handle)?.file
  }

  release(handle: number): number {
    const kept = this.#files.get(handle)
    if (kept !== undefined && kept.file.fd >= 0) closeFd(kept.file.fd)
    if (kept?.request !== undefined) this.#asked.delete(keyOf(kept.request))
    this.#files.delete(handle)
    this.#journal?.released(handle)
    return 0
  }

  end(): void {
    this.#journal = undefined
    for (const handle of this.#files.keys()) this.release(handle)
  }
}

interface Kept<N, L> {
  readonly file: OpenFile<N, L>
  readonly request: RequestNumber | undefined
}

function keyOf({ low, high }: RequestNumber): string {
  return requestKey(low, high)
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

/** WRITE at the file's end. Others of the host may have made the file longer than the asking kernel knows; kept pages know their place. */
export function appends(request: FileRequest): boolean {
  return (request.word(WRITE_IN.flags) & O.APPEND) !== 0 && (request.word(WRITE_IN.writeFlags) & WRITE_KEPT) === 0
}

/** WRITE: the bytes that were written are told, fewer than given when the disk is full. `done`: so many were written before. */
export function writeOpen(fd: number, request: FileRequest, reply: FileReply, done = 0): number {
  const count = request.word(WRITE_IN.count)
  const data = request.data(WRITE_IN.size, count)
  const offset = request.number(WRITE_IN.offset)
  const isAtEnd = appends(request)
  do {
    const rest = data.subarray(done)
    const put = isAtEnd ? appendFd(fd, rest) : writeFd(fd, rest, offset + done)
    if (put === -ERRNO.EINTR) continue
    if (put < 0) return done > 0 ? reply.count(done) : put
    done += put
  } while (done < count)
  return reply.count(done)
}

/** How many bytes of a WRITE that {@link appends} stand in the file already, which ended at `size` before. A part counts only at the file's end. Throws the errno of a file that cannot be read. */
export function appended(fd: number, size: number, request: FileRequest): number {
  const data = Buffer.from(request.data(WRITE_IN.size, request.word(WRITE_IN.count)))
  const reader = reopen(fd, O.RDONLY)
  if (reader < 0) return 0
  try {
    const found = Buffer.alloc(data.length + OTHERS_BYTES)
    const tail = found.subarray(0, readSync(reader, found, 0, found.length, size))
    if (tail.length <= data.length) return tail.equals(data.subarray(0, tail.length)) ? tail.length : 0
    return tail.includes(data) ? data.length : 0
  } finally {
    closeFd(reader)
  }
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
