import { check } from '../syscall.ts'
import { hostCalls } from './calls.ts'

const CLONE_FS = 0x200
const PR_SET_SECUREBITS = 28
const SECBIT_NO_SETUID_FIXUP = 4

let [uidNow, gidNow] = [0, 0]

/**
 * Makes this thread fit to create files for others: it gets a umask of its own (0: the asker's is applied already), and keeps its capabilities whoever it acts for. Permissions are the asking
 * kernel's business (`default_permissions`), which also knows the asker's groups; here only the owner of what is made matters. Throws KernelError.
 */
export function prepareCredentials(): void {
  const c = hostCalls()
  // else umask would be that of all threads
  check(
    c.unshare(CLONE_FS),
    'unshare',
    'the files thread gets no umask of its own, without which it cannot make files for others',
  )
  c.umask(0)
  c.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
}

/** Runs `act` such that what it makes belongs to this user and group. Never around an await: the ids are the thread's. */
export function actingAs<T>(uid: number, gid: number, act: () => T): T {
  become(uid, gid)
  try {
    return act()
  } finally {
    become(0, 0)
  }
}

function become(uid: number, gid: number): void {
  if (gid !== gidNow) hostCalls().setfsgid(gid)
  if (uid !== uidNow) hostCalls().setfsuid(uid)
  gidNow = gid
  uidNow = uid
}
