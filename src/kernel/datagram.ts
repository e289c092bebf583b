/** Datagrams to Unix sockets, which Node cannot send. Source: unix(7), sd_notify(3). */
import { closeSync } from 'node:fs'
import { KernelError } from './errors.ts'
import { sendNow, unixAddress } from './socket-message.ts'
import { check, libc } from './syscall.ts'

const AF_UNIX = 1
const DATAGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000

/** A new socket for datagrams, which the caller closes; it does not wait and is not inherited. Throws KernelError. */
export function datagramSocket(): number {
  return check(libc().socket(AF_UNIX, DATAGRAM_NONBLOCK_CLOEXEC, 0), 'socket', 'cannot make a socket')
}

/** A struct sockaddr_un for a path, or `@name` for an abstract socket. Throws KernelError 'ENAMETOOLONG'. */
export function datagramAddress(path: string, call: 'bind' | 'connect'): Buffer {
  const address = unixAddress(path, call)
  if (!path.startsWith('@')) return address
  address[2] = 0
  // Of an abstract name every byte counts, also the NUL that ends a path.
  return address.subarray(0, -1)
}

/** Sends one datagram, and descriptors with it, which stay the caller's too; `@name` is an abstract socket. Does not wait. Throws KernelError. */
export function sendDatagram(path: string, data: Uint8Array, descriptors: readonly number[] = []): void {
  const socket = datagramSocket()
  try {
    const address = datagramAddress(path, 'connect')
    check(libc().connect(socket, address, address.length), 'connect', `cannot connect to ${path}`)
    const sent = sendNow(socket, data, descriptors)
    if (sent < 0) throw new KernelError('sendmsg', -sent, `cannot send to ${path}`)
  } finally {
    closeSync(socket)
  }
}
