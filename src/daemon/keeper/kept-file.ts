import { readSync, writeSync } from 'node:fs'
import { DaemonError } from '../errors.ts'

/** offset of the state 0, its length 8, restarts left 16, Unix ms of that number 24 (f64 each). Two places for states: the new one is written beside the old one, and then announced. */
const HEAD = { size: 32, offset: 0, length: 8, restarts: 16, at: 24 } as const
const PLACES = [4096, 1 << 30] as const

/** Restarts that a keeper grants at once; one more comes back every few seconds. */
const MAX_RESTARTS = 300
const MS_PER_RESTART = 10_000

/**
 * The file in memory through which a daemon tells its successor what to do, as long as the keeper has it open. It has logins in it, and no path. Whoever is killed while writing
 * leaves the state before.
 */
export class KeptFile {
  readonly fd: number

  constructor(fd: number) {
    this.fd = fd
  }

  /** The newest state. Throws DaemonError 'HANDOVER' when none was ever written. */
  read(): Buffer {
    const head = this.#head()
    const state = Buffer.alloc(head.readDoubleLE(HEAD.length))
    if (state.length === 0 || readSync(this.fd, state, 0, state.length, head.readDoubleLE(HEAD.offset)) < state.length)
      throw new DaemonError('HANDOVER', 'the daemon before left no state')
    return state
  }

  write(state: Uint8Array): void {
    const head = this.#head()
    const offset = head.readDoubleLE(HEAD.offset) === PLACES[0] ? PLACES[1] : PLACES[0]
    for (let done = 0; done < state.length; )
      done += writeSync(this.fd, state, done, state.length - done, offset + done)
    const [restarts, at] = this.#restarts(head)
    head.writeDoubleLE(offset, HEAD.offset)
    head.writeDoubleLE(state.length, HEAD.length)
    this.#announce(head, restarts, at)
  }

  /** Takes one of the restarts that are left; gives how many there are then, below 0 when there was none. */
  takeRestart(): number {
    const head = this.#head()
    const [restarts, at] = this.#restarts(head)
    this.#announce(head, restarts - 1, at)
    return restarts - 1
  }

  #restarts(head: Buffer): readonly [number, number] {
    const now = Date.now()
    const at = head.readDoubleLE(HEAD.at)
    if (at === 0) return [MAX_RESTARTS, now]
    const back = Math.max(0, Math.floor((now - at) / MS_PER_RESTART))
    return [Math.min(MAX_RESTARTS, head.readDoubleLE(HEAD.restarts) + back), at + back * MS_PER_RESTART]
  }

  #head(): Buffer {
    const head = Buffer.alloc(HEAD.size)
    readSync(this.fd, head, 0, head.length, 0)
    return head
  }

  /** A few bytes within a page: the kernel writes all of them or none. */
  #announce(head: Buffer, restarts: number, at: number): void {
    head.writeDoubleLE(restarts, HEAD.restarts)
    head.writeDoubleLE(at, HEAD.at)
    writeSync(this.fd, head, 0, head.length, 0)
  }
}
