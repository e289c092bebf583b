import { closeSync } from 'node:fs'
import { datagramAddress, datagramSocket } from '../datagram.ts'
import { KernelError } from '../errors.ts'
import { receiveNow } from '../socket-message.ts'
import { bindCalls, check, later, libc } from '../syscall.ts'

const BIND = 'int bind(int, const void*, uint)'
/** struct pollfd: fd 0 (i32), events 4, revents 6 (i16 each): 8 bytes. */
const POLLFD = { size: 8, fd: 0, events: 4 } as const
const POLLIN = 1
const MAX_BYTES = 1 << 16

/** A Unix socket that datagrams come to, as a service manager has it; `@name` is an abstract one. Whoever makes it disposes of it. */
export class DatagramReceiver implements Disposable {
  readonly #socket = datagramSocket()

  /** Throws KernelError. */
  constructor(path: string) {
    try {
      const bind = bindCalls({ bind: BIND })['bind'] as unknown as (...args: [number, Uint8Array, number]) => number // as its signature says
      const address = datagramAddress(path, 'bind')
      check(bind(this.#socket, address, address.length), 'bind', `cannot listen on ${path}`)
    } catch (error) {
      closeSync(this.#socket)
      throw error
    }
  }

  /** The next datagram as text; descriptors that came with it are closed. Throws when none comes in time. */
  async next(timeoutMs = 60_000): Promise<string> {
    const { text, descriptors } = await this.nextWithDescriptors(timeoutMs)
    for (const fd of descriptors) closeSync(fd)
    return text
  }

  /** The same with the descriptors, which are the caller's. */
  async nextWithDescriptors(timeoutMs = 60_000): Promise<{ text: string; descriptors: readonly number[] }> {
    const waited = Buffer.alloc(POLLFD.size)
    waited.writeInt32LE(this.#socket, POLLFD.fd)
    waited.writeInt16LE(POLLIN, POLLFD.events)
    const ready = await later(libc().poll, 'poll', 'cannot wait for a datagram', waited, 1, timeoutMs)
    if (ready === 0) throw new Error(`no datagram came within ${timeoutMs} ms`)
    const into = Buffer.alloc(MAX_BYTES)
    const { length, descriptors } = receiveNow(this.#socket, into)
    if (length < 0) throw new KernelError('recvmsg', -length, 'cannot read a datagram')
    return { text: into.toString('utf8', 0, length), descriptors }
  }

  [Symbol.dispose](): void {
    closeSync(this.#socket)
  }
}
