import { DaemonError } from './errors.ts'

const SLOTS = 255

/** Numbers of the mounts of a session, which their inodes carry: 1 to 255. They go round, so that one which an old user still knows is not soon another image's. */
export class MountSlots {
  #last = 0

  /** The slot that is tried first for the next mount. */
  get next(): number {
    return (this.#last % SLOTS) + 1
  }

  /** Goes on where another daemon was. */
  goOnFrom(next: number): void {
    this.#last = (next + SLOTS - 1) % SLOTS
  }

  /** A slot that none of these have. Throws DaemonError 'TOO_MANY'. */
  take(used: ReadonlySet<number>): number {
    for (let tries = 0; tries < SLOTS; tries++) {
      this.#last = this.next
      if (!used.has(this.#last)) return this.#last
    }
    throw new DaemonError(
      'TOO_MANY',
      `${SLOTS} images are mounted, which is all that one daemon takes; start another`,
      {
        wire: 'vfs maximum mountpoints reached',
      },
    )
  }
}
