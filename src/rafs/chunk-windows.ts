import type { Bootstrap, ChunkSpan, Ino } from './bootstrap.ts'
import { isDictionary, listChunks } from './dictionary-image.ts'

/** Chunks of a file are looked up so many at a time: files may have millions. */
const CHUNKS_AT_ONCE = 1024

/** The chunks of a file in order, a part after the other: each time `into` holds as many as is yielded. Of a dictionary's file, all that it lists. */
export function* chunkWindows(image: Bootstrap, ino: Ino, size: number, into: ChunkSpan[]): Generator<number, void> {
  if (isDictionary(image)) {
    yield listChunks(image, ino, size, into)
    return
  }
  const step = CHUNKS_AT_ONCE * image.chunkSize
  for (let offset = 0; offset < size; offset += step) yield image.chunks(ino, offset, step, into)
}
