import { KernelError, punchHole, whileAlone } from '../kernel/index.ts'
import type { ChunkMap } from './chunk-map.ts'
import { distrustChunks, type TrustedChunks } from './trusted-chunks.ts'
import type { UnsyncedMarks } from './unsynced-marks.ts'

/** What is evicted from. */
export interface EvictedFrom {
  readonly fd: number
  readonly chunks: TrustedChunks
  readonly map: ChunkMap
  readonly unsynced: UnsyncedMarks
}

/** The next chunk that is looked at, so that all have their turn. */
export class EvictionHand {
  #at = 0

  /** Trusted chunks of about `bytes`, first those that nobody touched since the hand was there last; the others lose their touch, and are taken on a second round. */
  choose(chunks: TrustedChunks, bytes: number, touched: Uint8Array, isBusy: (chunk: number) => boolean): number[] {
    const { trusted, sizes } = chunks
    const victims = new Set<number>()
    let left = bytes
    for (let step = 0; step < 2 * trusted.length && left > 0; step += 1) {
      const chunk = this.#at % trusted.length
      this.#at = chunk + 1
      if (trusted[chunk] !== 1 || victims.has(chunk) || isBusy(chunk)) continue
      if (touched[chunk] === 1) {
        touched[chunk] = 0
        continue
      }
      victims.add(chunk)
      left -= sizes[chunk] ?? 0
    }
    return [...victims]
  }
}

/**
 * Frees the data of trusted chunks. In this order, so that nobody ever sees a hole: no reader may show them, no mark claims them, then they go. Only while nobody else has the file open, since others have their own
 * trust. Gives the bytes freed.
 */
export function evictChunks({ fd, chunks, map, unsynced }: EvictedFrom, choose: () => readonly number[]): number {
  let freed = 0
  whileAlone(fd, () => {
    const victims = choose()
    distrustChunks(chunks, victims)
    unsynced.withdraw(victims)
    map.clear(victims)
    if (victims.length > 0) map.sync() // a power cut must not bring marks back when their data is gone
    // A mark that is still in the file, because somebody holds its lock, may be read by a daemon that believes it.
    for (const chunk of victims.filter((victim) => !map.isClearing(victim))) {
      const [offset, size] = [chunks.offsets[chunk] ?? 0, chunks.sizes[chunk] ?? 0]
      try {
        punchHole(fd, offset, size)
        freed += size
      } catch (error) {
        if (!(error instanceof KernelError)) throw error // a file system without holes: the chunk is fetched again
      }
    }
  })
  return freed
}
