/** For tests: the kernel's end of cachefiles, as its documentation has it (docs/formats/cachefiles.md), over a pair of sockets that keep messages apart. */
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { check } from '../syscall.ts'
import { Cachefiles } from './cachefiles.ts'
import { calls } from './calls.ts'

/** AF_UNIX, SOCK_SEQPACKET with SOCK_NONBLOCK and SOCK_CLOEXEC. */
const PACKETS = [1, 5 | 0o4000 | 0o2000000, 0] as const
const POLL_MS = 2
const DEADLINE_MS = 20_000
const OPCODE = { OPEN: 0, CLOSE: 1, READ: 2 } as const

export class CachefilesKernel implements Disposable {
  /** For the server under test, which closes it. */
  readonly device: Cachefiles
  readonly #fd: number
  readonly #directory: string
  /** Read requests that were answered. */
  readonly #completed = new Set<number>()
  #id = 0

  /** Its cache files lie in the directory. */
  constructor(directory: string) {
    const ends = Buffer.alloc(8)
    check(calls().socketpair(...PACKETS, ends), 'socketpair', 'cannot make sockets')
    this.#fd = ends.readInt32LE(0)
    this.device = new Cachefiles(ends.readInt32LE(4), (_fd, id) => this.#completed.add(id))
    this.#directory = directory
  }

  /** Asks for a file; gives what the server says of it: its size, or minus an errno. */
  async open(object: number, volumeKey: string, cookieKey: string): Promise<number> {
    const [volume, cookie] = [Buffer.from(`${volumeKey}\0`), Buffer.from(cookieKey)]
    const body = Buffer.alloc(16)
    body.writeUInt32LE(volume.length, 0)
    body.writeUInt32LE(cookie.length, 4)
    body.writeUInt32LE(openSync(this.#path(object), 'w'), 8)
    const id = this.send(OPCODE.OPEN, object, Buffer.concat([body, volume, cookie]))
    const answer = /^copen (\d+),(-?\d+)$/.exec(await this.told())
    if (answer === null || Number(answer[1]) !== id)
      throw new Error(`open request ${id} was answered ${String(answer)}`)
    return Number(answer[2])
  }

  /** Asks for a range of an open file, and waits for the answer; gives all bytes that the file has then. */
  async read(object: number, offset: number, length: number): Promise<Buffer> {
    const body = Buffer.alloc(16)
    body.writeBigUInt64LE(BigInt(offset), 0)
    body.writeBigUInt64LE(BigInt(length), 8)
    const id = this.send(OPCODE.READ, object, body)
    await this.#until(() => this.#completed.has(id))
    return readFileSync(this.#path(object))
  }

  close(object: number): void {
    this.send(OPCODE.CLOSE, object, Buffer.alloc(0))
  }

  /** Any message; gives its id. */
  send(opcode: number, object: number, body: Buffer): number {
    const header = Buffer.alloc(16)
    header.writeUInt32LE(++this.#id, 0)
    header.writeUInt32LE(opcode, 4)
    header.writeUInt32LE(header.length + body.length, 8)
    header.writeUInt32LE(object, 12)
    writeSync(this.#fd, Buffer.concat([header, body]))
    return this.#id
  }

  /** The next thing that the server writes. */
  async told(): Promise<string> {
    let text: string | undefined
    await this.#until(() => (text = this.#readNow()) !== undefined)
    return text ?? ''
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
  }

  #path(object: number): string {
    return join(this.#directory, `object-${object}`)
  }

  #readNow(): string | undefined {
    const buffer = Buffer.alloc(512)
    try {
      return buffer.toString('utf8', 0, readSync(this.#fd, buffer))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined
      throw error
    }
  }

  async #until(isTrue: () => boolean): Promise<void> {
    const deadline = Date.now() + DEADLINE_MS
    while (!isTrue()) {
      if (Date.now() > deadline) throw new Error('cachefiles were not answered')
      await sleep(POLL_MS)
    }
  }
}
