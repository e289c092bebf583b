import { getSystemErrorMap } from 'node:util'

/** A call of the kernel that failed. `code` is the errno's name (`EPERM`, `EBUSY`, …), `call` the system call's. */
export class KernelError extends Error {
  override readonly name = 'KernelError'
  readonly code: string
  readonly errno: number
  readonly call: string

  constructor(call: string, errno: number, what: string) {
    const [code, text] = getSystemErrorMap().get(-errno) ?? [`ERRNO_${errno}`, 'unknown error']
    super(`${call} failed, ${what}: ${text} (${code})`)
    this.code = code
    this.errno = errno
    this.call = call
  }
}
