import { getSystemErrorMap } from 'node:util'

/** Those that Node has no names for, and disks and network file systems give. */
const UNNAMED: ReadonlyMap<number, readonly [code: string, text: string]> = new Map([
  [116, ['ESTALE', 'stale file handle']],
  [117, ['EUCLEAN', 'structure needs cleaning']],
  [122, ['EDQUOT', 'disk quota exceeded']],
])

/** A call of the kernel that failed. `code` is the errno's name (`EPERM`, `EBUSY`, …), `call` the system call's. */
export class KernelError extends Error {
  override readonly name = 'KernelError'
  readonly code: string
  readonly errno: number
  readonly call: string

  constructor(call: string, errno: number, what: string) {
    const [code, text] = getSystemErrorMap().get(-errno) ?? UNNAMED.get(errno) ?? [`ERRNO_${errno}`, 'unknown error']
    super(`${call} failed, ${what}: ${text} (${code})`)
    this.code = code
    this.errno = errno
    this.call = call
  }
}
