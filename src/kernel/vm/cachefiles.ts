/** The kernel's cache of files, filled on demand by this process. Layouts: docs/formats/cachefiles.md. */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { closeOnExec } from '../descriptor-flags.ts'
import { KernelError } from '../errors.ts'
import { check } from '../syscall.ts'
import { calls, type PollHandle, watch } from './calls.ts'

/** id, opcode, length, object (u32 each): 16 bytes. */
const HEADER = { size: 16, id: 0, opcode: 4, length: 8, object: 12 } as const
/** volume key size, cookie key size, fd, flags (u32 each), then the keys. */
const OPEN = { size: 32, volumeKeySize: 16, cookieKeySize: 20, fd: 24 } as const
/** offset, length (u64 each). */
const READ = { size: 32, offset: 16, length: 24 } as const
const OPCODE = { OPEN: 0, CLOSE: 1, READ: 2 } as const
/** ioctl type 0x98, number 1, an int in. */
const READ_COMPLETE = 0x4004_9801
/** A message has two keys of at most 255 bytes. */
const MESSAGE_BYTES = 8192
const ERRNO = { EPROTO: 71 } as const

/** What the kernel asks. Keys are those of a volume of its cache and of a file in it. */
export type CacheRequest =
  | {
      readonly kind: 'open'
      readonly id: number
      readonly object: number
      /** To write the file with; the server's from now on. */
      readonly fd: number
      readonly volumeKey: string
      readonly cookieKey: string
    }
  | { readonly kind: 'close'; readonly id: number; readonly object: number }
  | {
      readonly kind: 'read'
      readonly id: number
      readonly object: number
      readonly offset: bigint
      readonly length: bigint
    }

/** One message. Throws KernelError 'EPROTO' for what is none. */
export function parseCacheRequest(message: Buffer): CacheRequest {
  if (message.length < HEADER.size || message.readUInt32LE(HEADER.length) !== message.length) throw garbled(message)
  const id = message.readUInt32LE(HEADER.id)
  const object = message.readUInt32LE(HEADER.object)
  switch (message.readUInt32LE(HEADER.opcode)) {
    case OPCODE.OPEN: {
      if (message.length < OPEN.size) throw garbled(message)
      const keys = OPEN.size + message.readUInt32LE(OPEN.volumeKeySize)
      const end = keys + message.readUInt32LE(OPEN.cookieKeySize)
      if (end > message.length) throw garbled(message)
      const volumeKey = textOf(message.subarray(OPEN.size, keys))
      return {
        kind: 'open',
        id,
        object,
        fd: message.readUInt32LE(OPEN.fd),
        volumeKey,
        cookieKey: textOf(message.subarray(keys, end)),
      }
    }
    case OPCODE.CLOSE:
      return { kind: 'close', id, object }
    case OPCODE.READ: {
      if (message.length < READ.size) throw garbled(message)
      const [offset, length] = [message.readBigUInt64LE(READ.offset), message.readBigUInt64LE(READ.length)]
      return { kind: 'read', id, object, offset, length }
    }
    default:
      throw garbled(message)
  }
}

/** Keys may end with NULs. */
function textOf(key: Buffer): string {
  const end = key.indexOf(0)
  return (end < 0 ? key : key.subarray(0, end)).toString('utf8')
}

function garbled(message: Buffer): KernelError {
  return new KernelError('read', ERRNO.EPROTO, `a request of cachefiles with ${message.length} bytes makes no sense`)
}

/** The device that the kernel asks by. Its owner closes it; then the kernel finds nothing that it does not have. */
export class Cachefiles {
  readonly #fd: number
  readonly #complete: (fd: number, id: number) => void
  readonly #buffer = Buffer.alloc(MESSAGE_BYTES)
  #poll: PollHandle | undefined
  #isClosed = false

  /** Over a descriptor that speaks the protocol, which it owns. `complete` tells the kernel that a read is over. */
  constructor(fd: number, complete: (fd: number, id: number) => void = readComplete) {
    this.#fd = fd
    this.#complete = complete
  }

  /** Opens the device at `path` and binds it to a directory. Throws the system's error, or KernelError. */
  static open(path: string, directory: string, tag: string | undefined): Cachefiles {
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
    try {
      const device = new Cachefiles(fd)
      device.command(`dir ${directory}`)
      if (tag !== undefined) device.command(`tag ${tag}`)
      device.command('bind ondemand')
      return device
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  /** Starts to tell of requests; `onGarbled` of what is none. Once. Throws KernelError. */
  listen(onRequest: (request: CacheRequest) => void, onGarbled: (error: KernelError) => void): void {
    this.#poll = watch(this.#fd, { readable: true }, () => {
      for (let message = this.#next(); message !== undefined; message = this.#next()) {
        let request: CacheRequest
        try {
          request = parseCacheRequest(message)
          if (request.kind === 'open') closeOnExec(request.fd)
        } catch (error) {
          if (!(error instanceof KernelError)) throw error
          onGarbled(error)
          continue
        }
        onRequest(request)
      }
    })
  }

  /** Answers an open request: with the file's size, or with minus an errno. Throws the system's error. */
  opened(id: number, size: number): void {
    this.command(`copen ${id},${size}`)
  }

  /** Answers a read request of the file that `fd` writes: what is there now is all that comes. Throws KernelError. */
  hasRead(fd: number, id: number): void {
    this.#complete(fd, id)
  }

  /** Throws the system's error when the kernel refuses it. */
  command(text: string): void {
    if (!this.#isClosed) writeSync(this.#fd, text)
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#poll?.close()
    closeSync(this.#fd)
  }

  #next(): Buffer | undefined {
    if (this.#isClosed) return undefined
    try {
      const length = readSync(this.#fd, this.#buffer)
      return length === 0 ? undefined : this.#buffer.subarray(0, length)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EAGAIN' || code === 'EINTR') return undefined // told again while there is something
      throw error
    }
  }
}

function readComplete(fd: number, id: number): void {
  check(calls().ioctl(fd, READ_COMPLETE, id), 'ioctl', `cannot answer read ${id} of cachefiles`)
}
