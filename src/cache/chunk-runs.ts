import type { StoredUnit } from './chunk-form.ts'
import type { ChunkPlace } from './trusted-chunks.ts'

/** Chunks of images that the kernel can show begin at blocks; what lies between the end of one and the block at which the next one of the blob begins is nobody's, and zero. */
const BLOCK = 4096
/** To write that much at a time costs little more than to copy it; larger chunks are written as they are. */
const MOST_BYTES = 256 * 1024

/** Neighbours in a data file, and their bytes. */
export interface Run {
  readonly places: readonly ChunkPlace[]
  readonly unit: StoredUnit
}

interface Placed {
  readonly place: ChunkPlace
  readonly bytes: Uint8Array
}

/** What is needed of a record that is filled anew for the next chunk. */
export function placeOf({ index, uncompressedOffset, uncompressedSize }: ChunkPlace): ChunkPlace {
  return { index, uncompressedOffset, uncompressedSize }
}

/** Joins chunks, in their order, that follow each other in the data file: directly, or the next of the blob at the next block. */
export function runsOf(chunks: readonly Placed[]): Run[] {
  const runs: Run[] = []
  let run: Placed[] = []
  for (const chunk of chunks) {
    if (run.length > 0 && !continues(run, chunk)) {
      runs.push(joined(run))
      run = []
    }
    run.push(chunk)
  }
  if (run.length > 0) runs.push(joined(run))
  return runs
}

function continues(run: readonly Placed[], { place }: Placed): boolean {
  const [first, last] = [run[0]?.place, run.at(-1)?.place]
  if (first === undefined || last === undefined) return false
  const end = endOf(last)
  // In blobs that are not aligned a chunk between the two may be there already.
  const isNext = place.index === last.index + 1
  const at = place.uncompressedOffset
  const follows = at === end || (isNext && at === Math.ceil(end / BLOCK) * BLOCK)
  return follows && endOf(place) - first.uncompressedOffset <= MOST_BYTES
}

function joined(run: readonly Placed[]): Run {
  const places = run.map(({ place }) => place)
  const offset = places[0]?.uncompressedOffset ?? 0
  if (run.length === 1) return { places, unit: { offset, bytes: run[0]?.bytes ?? new Uint8Array(0) } }
  const last = places.at(-1)
  const bytes = new Uint8Array(last === undefined ? 0 : endOf(last) - offset)
  for (const { place, bytes: of } of run) bytes.set(of, place.uncompressedOffset - offset)
  return { places, unit: { offset, bytes } }
}

function endOf({ uncompressedOffset, uncompressedSize }: ChunkPlace): number {
  return uncompressedOffset + uncompressedSize
}
