import { closeSync, readlinkSync } from 'node:fs'
import { KernelError } from './errors.ts'
import { check, cPath, libc } from './syscall.ts'

/** Source: fanotify_init(2): notifications only; close-on-exec; non-blocking; a queue without bound. */
const INIT_FLAGS = 0x00 | 0x01 | 0x02 | 0x10
/** Of the descriptors that come with events: read-only, large files, close-on-exec. */
const EVENT_FLAGS = 0 | 0o100000 | 0o2000000
/** Source: fanotify_mark(2): add, to the whole file system. */
const MARK_FLAGS = 0x01 | 0x100
const FAN_OPEN = 0x20
const FAN_OPEN_EXEC = 0x1000
const AT_FDCWD = -100
const EAGAIN = 11
/** Source: fanotify(7), `struct fanotify_event_metadata`: length at 0, descriptor at 16; 24 bytes in all. */
const EVENT = { size: 24, length: 0, descriptor: 16 } as const

/**
 * Which files of a file system are opened, by anybody, in any mount namespace. Needs CAP_SYS_ADMIN. Nothing waits for the one who watches: what happened is kept until it is asked for.
 */
export class OpenWatch implements Disposable {
  readonly #group: number
  readonly #buffer = new Uint8Array(64 * 1024)

  /** `path` is any on the file system. Throws KernelError. */
  constructor(path: string) {
    const c = libc()
    this.#group = check(
      c.fanotify_init(INIT_FLAGS, EVENT_FLAGS),
      'fanotify_init',
      'cannot watch files; this needs root (CAP_SYS_ADMIN)',
    )
    try {
      check(
        c.fanotify_mark(this.#group, MARK_FLAGS, FAN_OPEN | FAN_OPEN_EXEC, AT_FDCWD, cPath(path)),
        'fanotify_mark',
        `cannot watch the file system of ${path}`,
      )
    } catch (error) {
      closeSync(this.#group)
      throw error
    }
  }

  /** Paths that were opened since the last call, in order, as the namespace of who opened them has them. The kernel tells the same file once when nothing was asked for meanwhile. */
  drain(): string[] {
    const c = libc()
    const paths: string[] = []
    for (;;) {
      const size = c.read(this.#group, c.address(this.#buffer), this.#buffer.length)
      if (size < 0 && c.errno() === EAGAIN) return paths
      if (size < 0) throw new KernelError('read', c.errno(), 'cannot read which files were opened')
      if (size === 0) return paths
      const view = new DataView(this.#buffer.buffer, 0, size)
      for (let at = 0; at + EVENT.size <= size; ) {
        const path = takePath(view.getInt32(at + EVENT.descriptor, true))
        if (path !== undefined) paths.push(path)
        at += Math.max(EVENT.size, view.getUint32(at + EVENT.length, true))
      }
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#group)
  }
}

function takePath(descriptor: number): string | undefined {
  if (descriptor < 0) return undefined
  try {
    return readlinkSync(`/proc/self/fd/${descriptor}`)
  } finally {
    closeSync(descriptor)
  }
}
