import type { ReferredPlace } from '../blob/index.ts'
import { BuilderError } from './errors.ts'

/** The bytes of one file, read once from start to end. */
export interface Content {
  /** For messages. */
  readonly name: string
  readonly size: number
  /** Fills the start of `into` with the next bytes; gives how many, 0 at the end. */
  read(into: Uint8Array): Promise<number> | number
  /** Where the chunk that was read last lies in the source, when it is to be referred to instead of stored. */
  readonly place?: ReferredPlace | undefined
  /** For files with holes: where the first byte at or after `offset` lies that may be other than zero; `skip` goes on after a hole. */
  readonly holes?: { nextData(offset: number): number; skip(bytes: number): void } | undefined
}

/** Reads the rest of a chunk that starts at `offset` of its file; `filled` bytes of it are there. */
export async function fill(content: Content, into: Uint8Array, offset: number, filled: number): Promise<void> {
  let at = filled
  while (at < into.length) {
    const reading = content.read(at === 0 ? into : into.subarray(at))
    const got = typeof reading === 'number' ? reading : await reading
    if (got <= 0) throw shrunk(content, offset + at)
    at += got
  }
}

function shrunk(content: Content, at: number): BuilderError {
  return new BuilderError(
    'SOURCE_CHANGED',
    `cannot read ${content.name}: it ends at ${at} bytes and should have ${content.size}; it may have changed meanwhile`,
  )
}
