import { setImmediate as turn } from 'node:timers/promises'
import { Attributes, type Bootstrap, ChunkSpan, type Ino, isType, MODE } from '../rafs/index.ts'
import type { Clock } from './clock.ts'
import type { ImageBlob } from './image-blob.ts'
import type { PrefetchPlan } from './image-reader.ts'
import { ChunkPlace, type FetchRange } from './plan.ts'
import type { PrefetchPlace, Schedule } from './schedule.ts'

const MAX_PLAIN_BYTES = 8 << 20
/** Requests at once, at most: how many of them a link needs is for the schedule to say. */
const MAX_REQUESTS = 4
const FIRST_PAUSE_MS = 500
const LONGEST_PAUSE_MS = 30_000
/** Failed requests of one plan that are made again. */
const MAX_RETRIES = 32
/** Inodes looked at before other work gets a turn. */
const SLICE = 512

export interface PrefetchWork {
  readonly requests: number
  readonly clock: Clock
  /** Makes a claimed chunk trusted, or missing; a missing one may come from another cache. */
  readonly verify: (blob: ImageBlob, chunk: number) => Promise<void>
  /** False when it failed in a way that may pass; a rejection ends the plan. Tells the place what comes; ending it is the caller's. */
  readonly fetch: (blob: ImageBlob, range: FetchRange, place: PrefetchPlace) => Promise<boolean>
}

/** How many requests of a plan may still be made again. */
interface Retries {
  left: number
}

interface Piece {
  readonly blob: ImageBlob
  readonly range: FetchRange
}

interface Wanted {
  readonly blob: ImageBlob
  readonly chunk: number
}

/** Fetches ahead what a plan names, in its order, each chunk once, while nobody waits for anything else. */
export class Prefetcher {
  readonly #bootstrap: Bootstrap
  readonly #blobs: readonly ImageBlob[]
  readonly #schedule: Schedule
  readonly #work: PrefetchWork
  #running: { readonly abort: AbortController; readonly ended: Promise<void> } | undefined

  constructor(bootstrap: Bootstrap, blobs: readonly ImageBlob[], schedule: Schedule, work: PrefetchWork) {
    this.#bootstrap = bootstrap
    this.#blobs = blobs
    this.#schedule = schedule
    this.#work = work
  }

  /** Replaces the plan before. Settles when all of it is done or was given up. */
  async start(plan: PrefetchPlan): Promise<void> {
    const before = this.stop()
    const abort = new AbortController()
    const ended = before.then(() => this.#run(plan, abort.signal))
    this.#running = { abort, ended }
    await ended
  }

  async stop(): Promise<void> {
    const running = this.#running
    this.#running = undefined
    running?.abort.abort(new Error('prefetch was stopped'))
    await running?.ended.catch(() => undefined) // who started it has the error
  }

  async #run(plan: PrefetchPlan, signal: AbortSignal): Promise<void> {
    const chunks = this.#chunks(plan)
    const pieces = new Pieces(chunks, this.#schedule, this.#work)
    const requests = Math.max(1, Math.min(MAX_REQUESTS, this.#work.requests))
    const retries: Retries = { left: MAX_RETRIES }
    const loops = Array.from({ length: requests }, () => this.#loop(pieces, retries, signal))
    const ends = await Promise.allSettled(loops) // who stops this waits for all of them
    const failed = ends.find((end) => end.status === 'rejected')
    if (failed !== undefined && !signal.aborted) throw failed.reason
  }

  /** One request after the other: the next one goes out while the chunks of the one before are decoded. */
  async #loop(pieces: Pieces, retries: Retries, signal: AbortSignal): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS
    let decoding: Promise<unknown> = Promise.resolve()
    try {
      for (;;) {
        signal.throwIfAborted()
        const piece = (await pieces.next()) ?? (await decoding.then(() => pieces.next()))
        if (piece === undefined) return
        const before = decoding
        const { came, ended } = await this.#begin(piece, pieces, retries, signal)
        decoding = Promise.allSettled([before, ended])
        const hasCome = await came
        await before
        decoding = ended
        if (hasCome) pauseMs = FIRST_PAUSE_MS
        else {
          await this.#work.clock.sleep(pauseMs, signal)
          pauseMs = Math.min(LONGEST_PAUSE_MS, pauseMs * 2)
        }
      }
    } finally {
      await decoding.catch(() => undefined) // whoever stops this may close what a request still uses
    }
  }

  /** Makes the request when it may go out. `came`: its bytes are there, or it failed; `ended`: they are decoded too. A rejection of the request is one of both. */
  async #begin(
    { blob, range }: Piece,
    pieces: Pieces,
    retries: Retries,
    signal: AbortSignal,
  ): Promise<{ readonly came: Promise<boolean>; readonly ended: Promise<void> }> {
    const place = await this.#schedule.startPrefetch(range.length, range.plainLength, signal)
    // A reader may have had it meanwhile.
    if (!range.chunks.every((chunk) => blob.isMissing(chunk))) {
      place.end()
      pieces.again(blob, range.chunks)
      return { came: Promise.resolve(true), ended: Promise.resolve() }
    }
    const { promise: hasArrived, resolve } = Promise.withResolvers<boolean>()
    const arrived = (bytes: number): void => {
      place.arrived(bytes)
      resolve(true)
    }
    const fetching = this.#work.fetch(blob, range, { ...place, arrived }).finally(() => place.end())
    const ended = fetching.then((isDone) => {
      if (!isDone && retries.left-- > 0) pieces.again(blob, range.chunks)
    })
    ended.catch(() => undefined) // told by `came`, or by the next wait for `ended`; until then nobody waits
    return { came: Promise.race([hasArrived, fetching]), ended }
  }

  /** All chunks of a plan in its order; some may come more than once. */
  async *#chunks(plan: PrefetchPlan): AsyncGenerator<Wanted> {
    const root = this.#bootstrap.root
    const listed = plan.table ? this.#bootstrap.prefetch() : []
    const isEverything = plan.everything || listed.includes(root)
    yield* this.#heads()
    for (const ino of listed) if (ino !== root) yield* this.#below(ino)
    for (const path of plan.paths) {
      const ino = this.#find(path)
      if (ino === root) {
        yield* this.#all()
        return
      }
      if (ino !== undefined) yield* this.#below(ino)
    }
    if (isEverything) yield* this.#all()
  }

  /** What a builder that was told to put first things first says of its blobs; only images of v5 keep it. */
  async *#heads(): AsyncGenerator<Wanted> {
    const place = new ChunkPlace()
    for (const blob of this.#blobs) {
      const { prefetchSize } = blob.info
      if (prefetchSize === 0) continue
      for (let chunk = 0; chunk < blob.chunkCount; chunk += 1) {
        if (chunk % SLICE === SLICE - 1) await turn()
        if (!blob.place(chunk, place)) continue
        if (place.compressedOffset >= prefetchSize) break
        yield { blob, chunk }
      }
    }
  }

  async *#all(): AsyncGenerator<Wanted> {
    for (const blob of this.#blobs) {
      for (let chunk = 0; chunk < blob.chunkCount; chunk++) {
        if (chunk % SLICE === SLICE - 1) await turn()
        if (blob.has(chunk)) yield { blob, chunk }
      }
    }
  }

  #find(path: Uint8Array): Ino | undefined {
    let ino: Ino | undefined = this.#bootstrap.root
    const attributes = new Attributes()
    for (const name of Buffer.from(path).toString('latin1').split('/')) {
      if (name === '' || name === '.') continue
      if (ino === undefined) return undefined
      this.#bootstrap.attributes(ino, attributes)
      if (!isType(attributes.mode, MODE.DIRECTORY)) return undefined
      ino = this.#bootstrap.lookup(ino, Buffer.from(name, 'latin1'))
    }
    return ino
  }

  /** The chunks of a file, or of all files below a directory. */
  async *#below(from: Ino): AsyncGenerator<Wanted> {
    const attributes = new Attributes()
    const spans: ChunkSpan[] = []
    const open: Ino[] = [from]
    let left = this.#bootstrap.entryLimit + 1
    for (let ino = open.pop(); ino !== undefined && left-- > 0; ino = open.pop()) {
      if (left % SLICE === 0) await turn()
      this.#bootstrap.attributes(ino, attributes)
      if (isType(attributes.mode, MODE.DIRECTORY)) {
        const children: Ino[] = []
        this.#bootstrap.list(ino, 0, (_name, child) => {
          children.push(child)
          return true
        })
        open.push(...children.toReversed())
      } else if (isType(attributes.mode, MODE.FILE)) {
        const count = this.#bootstrap.chunks(ino, 0, attributes.size, spans)
        for (let index = 0; index < count; index++) {
          const blob = this.#blobs[spans[index].blobIndex]
          if (blob !== undefined) yield { blob, chunk: spans[index].chunkIndex }
        }
      }
    }
  }
}

/** Makes requests of a sequence of chunks: neighbours that follow each other come together, up to the size that the schedule likes. */
class Pieces {
  readonly #chunks: AsyncGenerator<Wanted>
  readonly #schedule: Schedule
  readonly #work: PrefetchWork
  readonly #returned: Wanted[] = []
  #turn: Promise<unknown> = Promise.resolve()

  constructor(chunks: AsyncGenerator<Wanted>, schedule: Schedule, work: PrefetchWork) {
    this.#chunks = chunks
    this.#schedule = schedule
    this.#work = work
  }

  /** One caller at a time; the others wait. */
  next(): Promise<Piece | undefined> {
    const piece = this.#turn.then(() => this.#next())
    this.#turn = piece.catch(() => undefined)
    return piece
  }

  /** Chunks of a piece that was not fetched: those still missing come again. */
  again(blob: ImageBlob, chunks: readonly number[]): void {
    for (const chunk of chunks) if (blob.isMissing(chunk)) this.#returned.push({ blob, chunk })
  }

  async #next(): Promise<Piece | undefined> {
    const place = new ChunkPlace()
    const most = this.#schedule.pieceBytes
    let blob: ImageBlob | undefined
    const chunks: number[] = []
    let [from, to, plain] = [0, 0, 0]
    for (let wanted = await this.#missing(); wanted !== undefined; wanted = await this.#missing()) {
      if (!wanted.blob.place(wanted.chunk, place)) continue
      if (blob === undefined && wanted.blob.zran !== undefined) {
        const [range] = wanted.blob.zran.plan([wanted.chunk], wanted.blob)
        if (range !== undefined) return { blob: wanted.blob, range }
        continue
      }
      const end = place.compressedOffset + place.storedSize
      const isOfBatch = end === to && place.compressedOffset >= from
      const isNext = place.compressedOffset >= to && place.compressedOffset - to <= 4096
      const follows = blob === wanted.blob && (isNext || isOfBatch)
      const fits = end - from <= most && plain + place.plainSize <= MAX_PLAIN_BYTES
      if (blob !== undefined && !(follows && fits)) {
        this.#returned.unshift(wanted)
        break
      }
      if (blob === undefined) from = place.compressedOffset
      blob = wanted.blob
      to = end
      plain += place.plainSize
      chunks.push(wanted.chunk)
    }
    return blob && { blob, range: { compressedOffset: from, length: to - from, chunks, plainLength: plain } }
  }

  /** The next chunk that is neither here nor on its way; claimed ones are verified on the way. */
  async #missing(): Promise<Wanted | undefined> {
    for (;;) {
      const wanted = this.#returned.shift() ?? (await this.#chunks.next()).value
      if (wanted === undefined) return undefined
      const { blob, chunk } = wanted
      if (!blob.isHere(chunk)) await this.#work.verify(blob, chunk)
      if (blob.isMissing(chunk)) return wanted
    }
  }
}
