import { libc } from './syscall.ts'

const F_SETSIG = 10
const F_SETLEASE = 1024
const F_WRLCK = 1
const F_UNLCK = 2
/** Ignored unless somebody asks for it; the default signal would end the process when somebody opens the file meanwhile. */
const SIGURG = 23

/**
 * Runs `act` while no other descriptor of any process is open on the file; who opens it waits until `act` has returned, so it must be quick. False, without running it, when somebody else has the file open, or
 * the file system cannot tell. `fd` must be open for writing.
 */
export function whileAlone(fd: number, act: () => void): boolean {
  const c = libc()
  if (c.fcntl(fd, F_SETSIG, SIGURG) < 0 || c.fcntl(fd, F_SETLEASE, F_WRLCK) < 0) return false
  try {
    act()
    return true
  } finally {
    c.fcntl(fd, F_SETLEASE, F_UNLCK)
  }
}
