import { SLOT } from './layout.ts'

/**
 * Places for inodes in the meta area, exactly as the original builder finds them, so that both write the same bytes: a running end, and queues of
 * blocks that were left partly unused, by the number of free slots at their end. Source: docs/formats/rafs-v6.md, "Placement".
 */
export class OffsetAllocator {
  /** Next unused byte; the root lands at 4096. */
  end = 4096
  readonly #blockSize: number
  /** Starts of blocks with that many free slots at their end; first in, first out. */
  readonly #queues: Array<{ blocks: number[]; head: number }>

  constructor(blockSize: number) {
    this.#blockSize = blockSize
    this.#queues = Array.from({ length: blockSize / SLOT }, () => ({ blocks: [], head: 0 }))
  }

  /** Notes that the block of `position` is unused from there. */
  leave(position: number): void {
    const used = position % this.#blockSize
    if (used === 0) return
    const queue = this.#queues[Math.floor((this.#blockSize - used) / SLOT)]
    queue?.blocks.push(position - used)
  }

  /** A place inside a block left earlier, the smallest rest that is large enough; -1 when there is none. */
  reuse(size: number): number {
    if (size >= this.#blockSize) return -1
    const slots = Math.ceil(size / SLOT)
    for (let free = slots; free < this.#queues.length; free++) {
      const queue = this.#queues[free]
      if (queue === undefined || queue.head === queue.blocks.length) continue
      const block = queue.blocks[queue.head++] // head is inside
      const at = block + this.#blockSize - SLOT * free
      this.leave(at + SLOT * slots)
      return at
    }
    return -1
  }

  align(to: number): void {
    this.end = Math.ceil(this.end / to) * to
  }

  /** At the running end. */
  append(size: number): number {
    const at = this.end
    this.end += size
    return at
  }
}
