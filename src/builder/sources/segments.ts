/** Bytes of a segment, as the original reads a layer: where one ends shows in the places of chunks. */
const SEGMENT_BYTES = 64 * 1024

/** The same bytes in segments of one size, the last may be shorter. Pieces are valid until the next one is asked for, and so are segments. */
export async function* inSegments(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const gathered = new Uint8Array(SEGMENT_BYTES)
  let filled = 0
  for await (const piece of pieces) {
    let at = 0
    if (filled > 0 || piece.length < SEGMENT_BYTES) {
      at = Math.min(piece.length, SEGMENT_BYTES - filled)
      gathered.set(piece.subarray(0, at), filled)
      filled += at
      if (filled < SEGMENT_BYTES) continue
      yield gathered
      filled = 0
    }
    for (; at + SEGMENT_BYTES <= piece.length; at += SEGMENT_BYTES) yield piece.subarray(at, at + SEGMENT_BYTES)
    gathered.set(piece.subarray(at))
    filled = piece.length - at
  }
  if (filled > 0) yield gathered.subarray(0, filled)
}
