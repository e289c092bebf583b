import { check, libc } from './syscall.ts'

const PR_SET_PDEATHSIG = 1
const MFD_CLOEXEC = 1

/** Makes the kernel send this process a signal when the process that started it ends. It may have ended already: look at `process.ppid` afterwards. Throws KernelError. */
export function signalWhenParentEnds(signal: number): void {
  check(libc().prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), 'prctl', 'cannot ask for a signal')
}

/** A file without a path, in memory: gone when nobody has it open. Gives its descriptor, which the caller closes. Throws KernelError. */
export function memoryFile(name: string): number {
  return check(libc().memfd_create(name, MFD_CLOEXEC), 'memfd_create', `cannot make the file ${name} in memory`)
}
