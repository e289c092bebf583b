import { check, libc } from './syscall.ts'

const F_SETFD = 2
const F_GETFL = 3
const F_SETFL = 4
const FD_CLOEXEC = 1
const O_NONBLOCK = 0o4000

/** Keeps a descriptor that this process was given from the programs that it starts. Throws KernelError 'EBADF'. */
export function closeOnExec(fd: number): void {
  check(libc().fcntl(fd, F_SETFD, FD_CLOEXEC), 'fcntl', `cannot keep descriptor ${fd} to this process`)
}

/** Whether reads of a descriptor wait; of all processes that share it. Throws KernelError. */
export function waitInReads(fd: number, wait: boolean): void {
  const flags = check(libc().fcntl(fd, F_GETFL, 0), 'fcntl', `cannot ask for the flags of descriptor ${fd}`)
  const wanted = wait ? flags & ~O_NONBLOCK : flags | O_NONBLOCK
  check(libc().fcntl(fd, F_SETFL, wanted), 'fcntl', `cannot set the flags of descriptor ${fd}`)
}
