import type { GrowBudget } from './grow-budget.ts'
import type { ImageBlob } from './image-blob.ts'
import { type FetchLimits, type FetchRange, planFetch, planFollowing } from './plan.ts'
import { ReadOn } from './read-on.ts'

/** Less is not worth a request of its own. */
const READ_ON_BYTES = 256 * 1024
/** Requests on their way far ahead of readers: the link is never idle, and others get their share of it. */
const COMING = 2
/** Readers who are followed at a time. */
const MOST_RUNS = 4
/** Who has read so many of a blob's chunks reads the next blob too. */
const MOST_OF_BLOB = 0.75

/** A request, and what it is of. */
interface Place {
  readonly blob: ImageBlob
  readonly range: FetchRange
}

/** Requests one behind the other, ahead of one reader. */
interface Run {
  last: Place
  /** Nothing is missing behind it in its blob. */
  isAtEnd: boolean
  /** Requests that the reader has not come to, in their order, and what they are of. */
  readonly ahead: Map<FetchRange, ImageBlob>
}

export interface LookAheadParts {
  readonly blobs: readonly ImageBlob[]
  readonly grow: GrowBudget
  /** Milliseconds, monotonic. */
  readonly now: () => number
  readonly limits: () => FetchLimits
  /** Requests that somebody waits for, or that were guessed, and are under way. */
  readonly underWay: () => number
  /** Makes a request of chunks that nobody has asked for; false when it failed. Undefined when there is no place for it. */
  readonly fetch: (place: Place) => Promise<boolean> | undefined
}

/**
 * Asks for what lies behind a request when its reader comes to what was guessed: it reads on. At first for the next request only, so that the link is not idle while an answer is awaited. Where
 * nearly all of many guesses were read, for more: a reader of many small files is slower than the link, one of large files is faster, and what came early for the one is there when the other begins.
 */
export class LookAhead {
  readonly #parts: LookAheadParts
  readonly #watch: ReadOn
  readonly #runOf = new WeakMap<FetchRange, Run>()
  readonly #runs = new Set<Run>()
  /** Of each blob: the chunks before this one were here once, or on their way. */
  readonly #here = new Map<ImageBlob, number>()
  #coming = 0
  #isClosed = false
  #isFar = true

  constructor(parts: LookAheadParts) {
    this.#parts = parts
    this.#watch = new ReadOn(parts.now)
  }

  /** A request goes out. Gives what is to be called when somebody waits for a chunk of it that was guessed. */
  follow(place: Place): () => void {
    let isKnown = false
    const end = (): boolean => {
      const wasKnown = isKnown
      isKnown = true
      return !wasKnown && !this.#isClosed
    }
    const onRead = (): void => {
      if (end()) this.#entered(place)
    }
    const onGone = (): void => {
      if (end()) this.#runOf.get(place.range)?.ahead.delete(place.range)
    }
    if (this.#parts.grow.isProven(this.#aheadBytes)) this.#watch.watch(place.range, place.blob.touched, onRead, onGone)
    else this.#runOf.get(place.range)?.ahead.delete(place.range)
    return onRead
  }

  /** Somebody got what it waited for: the link may be free for what is far ahead. */
  onFree(): void {
    for (const run of this.#runs) this.#extend(run, 0)
  }

  /** What comes early has no place to stay: from now on only the next request is asked for. */
  stayNear(): void {
    this.#isFar = false
  }

  close(): void {
    this.#isClosed = true
    this.#watch.close()
    this.#runs.clear()
  }

  get #aheadBytes(): number {
    let sum = 0
    for (const { ahead } of this.#runs) for (const { length } of ahead.keys()) sum += length
    return sum
  }

  /** A reader has come to what was guessed; once a request. */
  #entered(place: Place): void {
    const run = this.#runOf.get(place.range) ?? { last: place, isAtEnd: false, ahead: new Map<FetchRange, ImageBlob>() }
    // Those before it are behind the reader.
    if (run.ahead.has(place.range))
      for (const range of run.ahead.keys()) {
        run.ahead.delete(range)
        if (range === place.range) break
      }
    this.#runs.delete(run)
    this.#runs.add(run)
    const [oldest] = this.#runs
    if (this.#runs.size > MOST_RUNS && oldest !== undefined) this.#runs.delete(oldest)
    this.#extend(run, 1)
  }

  /** Makes requests until enough are ahead; `atLeast` so many whatever else is under way. */
  #extend(run: Run, atLeast: number): void {
    const { grow, limits, underWay } = this.#parts
    while (!this.#isClosed) {
      const most = limits()
      const aheadBytes = this.#aheadBytes
      if (most.growBytes < READ_ON_BYTES || !grow.isProven(aheadBytes)) return
      const isFar = this.#isFar && run.last.blob.cache !== undefined && aheadBytes < grow.farBytes(aheadBytes)
      const isNext = run.ahead.size < atLeast
      // Others may wait for theirs: what is far ahead comes after it.
      if (!isNext && (!isFar || this.#coming >= COMING || underWay() > this.#coming)) return
      const next = this.#next(run, most, isFar)
      if (next === undefined || !this.#begin(run, next)) return
    }
  }

  #begin(run: Run, next: Place): boolean {
    this.#runOf.set(next.range, run)
    run.ahead.set(next.range, next.blob)
    const coming = this.#parts.fetch(next)
    if (coming === undefined) {
      run.ahead.delete(next.range)
      return false
    }
    run.last = next
    run.isAtEnd = false
    this.#coming += 1
    void coming.then((hasCome) => {
      this.#coming -= 1
      if (!hasCome) run.ahead.delete(next.range)
      this.onFree()
    })
    return true
  }

  /** What lies behind; `isFar`: also behind what is here already, and in the next blob where this one was read. */
  #next(run: Run, limits: FetchLimits, isFar: boolean): Place | undefined {
    const { blob, range } = run.last
    const following = run.isAtEnd ? undefined : planFollowing(range, blob, limits)
    if (following !== undefined) return { blob, range: following }
    if (!isFar) return undefined
    const further = run.isAtEnd ? undefined : this.#missing(blob, (range.chunks.at(-1) ?? 0) + 1, limits)
    if (further !== undefined) return { blob, range: further }
    run.isAtEnd = true
    if (!isMostlyRead(blob, run)) return undefined
    const { blobs } = this.#parts
    for (let step = 1; step < blobs.length; step += 1) {
      const next = blobs[(blob.index + step) % blobs.length]
      const first = canFollow(next) ? this.#missing(next, 0, limits) : undefined
      if (first !== undefined) return { blob: next, range: first }
    }
    return undefined
  }

  /** The request for the first chunk from there on that is missing. */
  #missing(blob: ImageBlob, from: number, limits: FetchLimits): FetchRange | undefined {
    const here = this.#here.get(blob) ?? 0
    let chunk = Math.max(from, here)
    while (chunk < blob.chunkCount && !blob.isMissing(chunk)) chunk += 1
    if (from <= here) this.#here.set(blob, chunk)
    return chunk < blob.chunkCount ? planFetch([chunk], blob, limits)[0] : undefined
  }
}

function canFollow(blob: ImageBlob): boolean {
  return blob.zran === undefined && blob.tar === undefined && blob.cache !== undefined
}

/** Was what is not ahead of the reader read? */
function isMostlyRead(blob: ImageBlob, { ahead }: Run): boolean {
  let read = 0
  for (const isTouched of blob.touched) read += isTouched
  let left = blob.chunkCount
  for (const [{ chunks }, of] of ahead) if (of === blob) left -= chunks.length
  return read >= left * MOST_OF_BLOB
}
