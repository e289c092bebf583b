/** What another process has: its descriptors, and which process is at the other end of a socket. Sources: pidfd_open(2), pidfd_getfd(2), unix(7). */
import { closeSync } from 'node:fs'
import { KernelError } from './errors.ts'
import { bindCalls, check, libc, type Native } from './syscall.ts'

/** Numbers of calls that are the same on all processors; C libraries of 2019 have no names for them. */
const PIDFD = { open: 434, getfd: 438 } as const
const SOL_SOCKET = 1
const SO_PEERCRED = 17
/** struct ucred: pid 0, uid 4, gid 8 (i32 each): 12 bytes. */
const UCRED_BYTES = 12

interface Calls {
  syscall: Native<[number: number, first: number, second: number, third: number]>
  getsockopt: Native<[socket: number, level: number, name: number, value: Uint8Array, size: Uint8Array]>
}

let bound: Calls | undefined

function calls(): Calls {
  bound ??= bindCalls({
    syscall: 'long syscall(long, long, long, long)',
    getsockopt: 'int getsockopt(int, int, int, void*, void*)',
  }) as unknown as Calls // one row a key of Calls
  return bound
}

/** The same open file that another process has as descriptor `fd`; ours is closed by the caller and not inherited. Needs the right to trace it. Throws KernelError, 'ESRCH' or 'EBADF' when there is none. */
export function takeDescriptor(pid: number, fd: number): number {
  const process = check(calls().syscall(PIDFD.open, pid, 0, 0), 'pidfd_open', `cannot look at process ${pid}`)
  try {
    return check(calls().syscall(PIDFD.getfd, process, fd, 0), 'pidfd_getfd', `cannot take descriptor ${fd} of ${pid}`)
  } finally {
    closeSync(process)
  }
}

/** The process that listened on the Unix socket to which `socket` is connected. Throws KernelError. */
export function listeningProcess(socket: number): number {
  const credentials = Buffer.alloc(UCRED_BYTES)
  const size = Buffer.alloc(4)
  size.writeUInt32LE(UCRED_BYTES)
  const result = calls().getsockopt(socket, SOL_SOCKET, SO_PEERCRED, credentials, size)
  if (result < 0) throw new KernelError('getsockopt', libc().errno(), 'cannot ask who listens')
  return credentials.readInt32LE(0)
}
