/** Datagrams to Unix sockets, which Node cannot send. Source: unix(7), sd_notify(3). */
import { closeSync } from 'node:fs'
import { unixAddress } from './socket-message.ts'
import { check, libc } from './syscall.ts'

const AF_UNIX = 1
const DATAGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000

/** Sends one datagram; `@name` is an abstract socket. Does not wait. Throws KernelError. */
export function sendDatagram(path: string, data: Uint8Array): void {
  const socket = check(libc().socket(AF_UNIX, DATAGRAM_NONBLOCK_CLOEXEC, 0), 'socket', 'cannot make a socket')
  try {
    const address = unixAddress(path, 'connect')
    const isAbstract = path.startsWith('@')
    if (isAbstract) address[2] = 0
    // Of an abstract name every byte counts, also the NUL that ends a path.
    const length = isAbstract ? address.length - 1 : address.length
    check(libc().connect(socket, address, length), 'connect', `cannot connect to ${path}`)
    check(libc().write(socket, libc().address(data), data.length), 'write', `cannot send to ${path}`)
  } finally {
    closeSync(socket)
  }
}
