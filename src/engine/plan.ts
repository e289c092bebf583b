/** Where a chunk is stored, and how large it is; a reused, mutable record. */
export class ChunkPlace {
  compressedOffset = 0
  storedSize = 0
  plainSize = 0
}

/** What planning needs to know of a blob. */
export interface PlannedBlob {
  readonly chunkCount: number
  /** Fills `into`; false when the image does not describe such a chunk. */
  place(chunk: number, into: ChunkPlace): boolean
  /** Neither here nor on its way. */
  isMissing(chunk: number): boolean
}

/** Bounds of the requests, bytes as stored where not told otherwise. */
export interface FetchLimits {
  /** Wanted chunks with no more than this between them come in one request: it costs less than another round trip. */
  readonly joinGapBytes: number
  /** All requests of the plan together may take so much more than was wanted, of what lies next to it. */
  readonly growBytes: number
  /** A request that is larger, stored or decoded, has one chunk only. */
  readonly maxStoredBytes: number
  readonly maxPlainBytes: number
}

/** One request: chunks that lie one after another, wanted or not, each missing. */
export interface FetchRange {
  readonly compressedOffset: number
  readonly length: number
  readonly chunks: readonly number[]
  readonly plainLength: number
  /** The range is this slice of a gzip, which all the chunks are in. */
  readonly slice?: number | undefined
}

/** A range under construction. */
interface Draft {
  first: number
  last: number
  from: number
  to: number
  plain: number
  readonly chunks: number[]
}

/** Holes between chunks (alignment) that do not count as something in between. */
const ALIGNMENT = 4096

/**
 * Plans the requests for chunks that somebody waits for. Wanted chunks that lie near each other come together, with the missing ones between them; then each request grows over
 * what follows, until less than a quarter of what it may grow is left, and over what precedes with the rest (a quarter at most), while that is missing too. Pure: the whole policy of amplification is here.
 */
export function planFetch(wanted: readonly number[], blob: PlannedBlob, limits: FetchLimits): FetchRange[] {
  const place = new ChunkPlace()
  const drafts: Draft[] = []
  const taken = new Set(wanted)
  /** Missing, and in no request of this plan. */
  const free: PlannedBlob = {
    chunkCount: blob.chunkCount,
    place: (chunk, into) => blob.place(chunk, into),
    isMissing: (chunk) => !taken.has(chunk) && blob.isMissing(chunk),
  }
  let draft: Draft | undefined
  for (const chunk of [...wanted].sort((a, b) => a - b)) {
    if (draft !== undefined && chunk <= draft.last) continue
    if (!blob.place(chunk, place)) continue
    if (draft !== undefined && joins(draft, chunk, place, free, limits)) continue
    draft = {
      first: chunk,
      last: chunk,
      from: place.compressedOffset,
      to: place.compressedOffset + place.storedSize,
      plain: place.plainSize,
      chunks: [chunk],
    }
    drafts.push(draft)
  }
  const share = Math.floor(limits.growBytes / Math.max(1, drafts.length))
  for (const each of drafts) {
    grow(each, free, limits, share)
    for (const chunk of each.chunks) taken.add(chunk)
  }
  return drafts.map(({ from, to, chunks, plain }) => ({
    compressedOffset: from,
    length: to - from,
    chunks,
    plainLength: plain,
  }))
}

/** The request for what lies behind another one, grown as far as it may; undefined when that is not missing. */
export function planFollowing(range: FetchRange, blob: PlannedBlob, limits: FetchLimits): FetchRange | undefined {
  const next = (range.chunks.at(-1) ?? blob.chunkCount) + 1
  const place = new ChunkPlace()
  if (next >= blob.chunkCount || !blob.isMissing(next) || !blob.place(next, place)) return undefined
  const gap = place.compressedOffset - range.compressedOffset - range.length
  return gap < 0 || gap > limits.joinGapBytes ? undefined : planFetch([next], blob, limits)[0]
}

/** Takes a wanted chunk into the draft when it is near enough, with what lies between. */
function joins(draft: Draft, chunk: number, target: ChunkPlace, blob: PlannedBlob, limits: FetchLimits): boolean {
  const gap = endsWith(draft, target) ? 0 : target.compressedOffset - draft.to
  const end = target.compressedOffset + target.storedSize
  if (gap < 0 || gap > limits.joinGapBytes || end - draft.from > limits.maxStoredBytes) return false
  const between: number[] = []
  const place = new ChunkPlace()
  let plain = draft.plain + target.plainSize
  let at = draft.to
  for (let index = draft.last + 1; index < chunk; index++) {
    if (!blob.isMissing(index) || !blob.place(index, place)) continue
    const ends = place.compressedOffset + place.storedSize
    const isOfBatch =
      (place.compressedOffset >= draft.from && ends === at) ||
      (place.compressedOffset === target.compressedOffset && ends === end)
    if (!isOfBatch && (place.compressedOffset < at || ends > target.compressedOffset)) continue
    at = Math.max(at, ends)
    plain += place.plainSize
    between.push(index)
  }
  if (plain > limits.maxPlainBytes) return false
  draft.chunks.push(...between, chunk)
  draft.last = chunk
  draft.to = end
  draft.plain = plain
  return true
}

/** Is the chunk in the batch that the draft ends with? Chunks of a batch have one place, and come together for the cost of one. */
function endsWith(draft: Draft, { compressedOffset, storedSize }: ChunkPlace): boolean {
  return compressedOffset >= draft.from && compressedOffset < draft.to && compressedOffset + storedSize === draft.to
}

function startsWith(draft: Draft, { compressedOffset, storedSize }: ChunkPlace): boolean {
  return compressedOffset === draft.from && storedSize > 0 && compressedOffset + storedSize <= draft.to
}

function grow(draft: Draft, blob: PlannedBlob, limits: FetchLimits, budget: number): void {
  const place = new ChunkPlace()
  const fits = (grown: number, most: number): boolean =>
    grown <= most &&
    draft.plain + place.plainSize <= limits.maxPlainBytes &&
    draft.to - draft.from + place.storedSize <= limits.maxStoredBytes
  let left = budget
  for (let index = draft.last + 1; index < blob.chunkCount; index++) {
    if (!blob.isMissing(index) || !blob.place(index, place)) break
    const gap = place.compressedOffset - draft.to
    const isShared = endsWith(draft, place)
    // Places come from the image: chunks need not follow each other in the order of their numbers.
    if (!isShared && (left < budget / 4 || gap < 0 || gap > ALIGNMENT)) break
    const cost = isShared ? 0 : gap + place.storedSize
    if (!fits(cost, left)) break
    left -= cost
    draft.chunks.push(index)
    draft.last = index
    draft.to = place.compressedOffset + place.storedSize
    draft.plain += place.plainSize
  }
  left = Math.min(left, budget / 4)
  for (let index = draft.first - 1; index >= 0; index--) {
    if (!blob.isMissing(index) || !blob.place(index, place)) break
    const gap = draft.from - place.compressedOffset - place.storedSize
    const isShared = startsWith(draft, place)
    if (!isShared && (gap < 0 || gap > ALIGNMENT)) break
    const cost = isShared ? 0 : gap + place.storedSize
    if (!fits(cost, left)) break
    left -= cost
    draft.chunks.unshift(index)
    draft.first = index
    draft.from = place.compressedOffset
    draft.plain += place.plainSize
  }
}
