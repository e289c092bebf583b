import type { StoredUnit } from './chunk-form.ts'
import type { ChunkPlace } from './trusted-chunks.ts'

/** Chunks of images that the kernel can show begin at blocks; what lies between the end of one and the block at which the next one of the blob begins is nobody's, and zero. */
const BLOCK = 4096
/** To write that much at a time costs little more than to copy it; larger chunks are written as they are. */
const MOST_BYTES = 256 * 1024

/** Buffers of that size which are kept for the next runs: enough for all decode threads of a process. */
const KEPT = 8

/** Neighbours in a data file, and their bytes. */
export interface Run {
  readonly places: readonly ChunkPlace[]
  readonly unit: StoredUnit
  /** The bytes may be used until then: nobody reads them any more. Once. */
  readonly end: () => void
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
  const last = places.at(-1)
  if (run.length === 1 || last === undefined)
    return { places, unit: { offset, bytes: run[0]?.bytes ?? new Uint8Array(0) }, end: () => undefined }
  const length = endOf(last) - offset
  const memory = length > MOST_BYTES ? new Uint8Array(length) : (kept.pop() ?? new Uint8Array(MOST_BYTES))
  const bytes = memory.subarray(0, length)
  let at = 0
  for (const { place, bytes: of } of run) {
    const from = place.uncompressedOffset - offset
    bytes.fill(0, at, from)
    bytes.set(of, from)
    at = from + of.length
  }
  const end = (): void => void (kept.length < KEPT && memory.length === MOST_BYTES && kept.push(memory))
  return { places, unit: { offset, bytes }, end }
}

/** V8 collects garbage after every 64 MiB of buffers that it sees come, also when they are gone at once. */
const kept: Uint8Array[] = []

function endOf({ uncompressedOffset, uncompressedSize }: ChunkPlace): number {
  return uncompressedOffset + uncompressedSize
}
