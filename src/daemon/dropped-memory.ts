import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

/** What may lie about before it is worth a collection: about three milliseconds of the thread, on a heap as small as these are. */
const COLLECT_BYTES = 16 << 20

/**
 * Shared memory that a thread has let go of. It is freed when every thread has collected its views of it, and a thread that allocates nothing never would by itself: the metadata of images that were
 * unmounted long ago would stay.
 */
export class DroppedMemory {
  #bytes = 0

  /** Collects when enough has come together. */
  add(bytes: number): void {
    this.#bytes += bytes
    if (this.#bytes < COLLECT_BYTES) return
    this.#bytes = 0
    setFlagsFromString('--expose-gc') // for good: other threads do the same, at the same time perhaps
    const collect = runInNewContext('globalThis.gc') as (() => void) | undefined // of a context made for it: this thread's own has none
    collect?.()
  }
}
