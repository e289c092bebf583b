/**
 * Caches of one data file that this process has open more than once: two mounts of one blob, whose images may tell different things of it. What one of them shows must not be overwritten by another with other bytes,
 * whatever that one's image says.
 */
import { fstatSync } from 'node:fs'
import type { TrustedChunks } from './trusted-chunks.ts'

interface Range {
  readonly offset: number
  readonly length: number
}

/** One of the caches of a data file. */
export class OpenCache {
  readonly #chunks: TrustedChunks
  readonly #all: Set<OpenCache>
  /** Writes under way, and their ends. */
  readonly #writes = new Map<Range, Promise<void>>()
  /** Writes of others that were begun. */
  #foreignWrites = 0
  /** Chunks that were ever shown, by the stretch of the file that they lie in; made when somebody else first asks. */
  #shown: Map<number, number[]> | undefined

  private constructor(chunks: TrustedChunks, all: Set<OpenCache>) {
    this.#chunks = chunks
    this.#all = all
    all.add(this)
  }

  /** Enters a cache; `leave` takes it out. */
  static enter(fd: number, chunks: TrustedChunks): OpenCache {
    const { dev, ino } = fstatSync(fd)
    const key = `${dev}:${ino}`
    const found = files.get(key)
    const all = found ?? new Set<OpenCache>()
    if (found === undefined) files.set(key, all)
    return new OpenCache(chunks, all)
  }

  leave(): void {
    this.#all.delete(this)
    if (this.#all.size > 0) return
    for (const [key, all] of files) if (all === this.#all) files.delete(key)
  }

  /** Grows with every write of another: bytes that were read before it may be others now. */
  get foreignWrites(): number {
    return this.#foreignWrites
  }

  /** To be told of each chunk that is trusted from now on. */
  shows(chunk: number): void {
    if (this.#shown !== undefined) this.#enterShown(this.#shown, chunk)
  }

  /** Runs a write, unless another cache shows bytes of the range: then false. Waits for writes of others there. */
  async write(range: Range, act: () => Promise<void>): Promise<boolean> {
    if (this.#all.size > 1) {
      for (let other = this.#writing(range); other !== undefined; other = this.#writing(range))
        await other.catch(() => undefined) // its own caller has the error
      for (const cache of this.#all) if (cache !== this && cache.#isShown(range)) return false
    }
    // From here to the end of the write nobody else begins one there.
    for (const cache of this.#all) if (cache !== this) cache.#foreignWrites += 1
    const write = act()
    this.#writes.set(range, write)
    try {
      await write
      return true
    } finally {
      this.#writes.delete(range)
    }
  }

  #writing(range: Range): Promise<void> | undefined {
    for (const cache of this.#all) {
      if (cache === this) continue
      for (const [other, end] of cache.#writes) if (overlap(range, other)) return end
    }
    return undefined
  }

  #isShown(range: Range): boolean {
    const { trusted } = this.#chunks
    if (this.#shown === undefined) {
      this.#shown = new Map()
      for (let chunk = 0; chunk < trusted.length; chunk += 1)
        if (trusted[chunk] === 1) this.#enterShown(this.#shown, chunk)
    }
    for (const stretch of stretchesOf(range))
      for (const chunk of this.#shown.get(stretch) ?? [])
        if (trusted[chunk] === 1 && overlap(range, this.#rangeOf(chunk))) return true
    return false
  }

  #enterShown(shown: Map<number, number[]>, chunk: number): void {
    for (const stretch of stretchesOf(this.#rangeOf(chunk))) {
      const there = shown.get(stretch)
      if (there === undefined) shown.set(stretch, [chunk])
      else if (!there.includes(chunk)) there.push(chunk)
    }
  }

  #rangeOf(chunk: number): Range {
    const { offsets, sizes } = this.#chunks
    return { offset: offsets[chunk] ?? 0, length: sizes[chunk] ?? 0 }
  }
}

const files = new Map<string, Set<OpenCache>>()

/** A stretch has few chunks, even of small files; a chunk lies in few stretches, even of the largest. */
const STRETCH_BYTES = 1 << 20

function* stretchesOf({ offset, length }: Range): Generator<number> {
  const last = Math.floor((offset + Math.max(length, 1) - 1) / STRETCH_BYTES)
  for (let stretch = Math.floor(offset / STRETCH_BYTES); stretch <= last; stretch += 1) yield stretch
}

function overlap(a: Range, b: Range): boolean {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length
}
