import type { ReferredPlace } from '../blob/index.ts'
import { ChunkBatch, MIN_ROOM } from './chunk-batch.ts'
import { ChunkPacker } from './chunk-packer.ts'
import {
  type ChunkAlgorithms,
  type ChunkWork,
  createChunkWork,
  PACKED,
  SKIP,
  type Step,
  storesPlain,
} from './chunk-work.ts'
import { type ChunkWorkers, INLINE_BYTES } from './chunk-workers.ts'
import { type Content, fill } from './content.ts'
import type { ChunkId, ChunkList, ChunkStore } from '../rafs/index.ts'
import type { ChunkRecord, LayerDictionary } from './dictionary.ts'
import { BuilderError } from './errors.ts'

const BATCH_BYTES = 2 * 1024 * 1024
/** Budget of all batches, input and output, and of those for each thread: the limit of memory that a build takes, however large its files are. */
const BATCHES_BYTES = 48 * 1024 * 1024
const THREAD_BYTES = 16 * 1024 * 1024
const MIN_BATCHES = 3
/** With packs each takes twice as much. */
const MIN_PACKING_BATCHES = 2
const MAX_BATCHES = 16

/** Takes new chunks in order; fills the record's offsets and number. `bytes` is valid until `settle` is done. `place` is what the content told of the chunk. */
export type StoreChunk = (
  record: ChunkRecord,
  bytes: Uint8Array,
  place: ReferredPlace | undefined,
) => Promise<void> | void

/** Takes the plain bytes of a stored chunk; they are valid until the promise settles. */
export type KeepChunk = (record: ChunkRecord, plain: Uint8Array) => Promise<void> | void

/** Where chunks of small files go that are stored together; all in one order with those that are stored alone. */
export interface PackStore {
  /** Packs have less than this many bytes, and files of one chunk that has less than half of it go there. */
  readonly size: number
  /** Takes the next chunk of the pack that is stored next; fills the record's offsets and number. */
  add(record: ChunkRecord): void
  /** Takes a pack with all its chunks; `bytes` is valid until the promise settles. */
  store(bytes: Uint8Array, uncompressedSize: number): Promise<void> | void
}

export interface PipelineOptions {
  readonly chunkSize: number
  readonly algorithms: ChunkAlgorithms
  /** Where the lists of files' chunks are kept, and the dictionary's chunks. */
  readonly chunks: ChunkStore
  readonly dictionary: LayerDictionary
  readonly workers: ChunkWorkers
  readonly store: StoreChunk
  /** Told when the bytes of chunks that were stored are to be used for others. */
  readonly settle?: (() => Promise<void> | void) | undefined
  /** Undefined: every chunk is stored alone. */
  readonly packs: PackStore | undefined
  /** Told of each stored chunk once it has its place, in order. */
  readonly keep?: KeepChunk | undefined
}

/** A chunk on its way: its `place` in the list of its file; `slot` in its batch, or REPEATED_ZEROS, which has no bytes there. */
interface Pending {
  readonly place: number
  readonly slot: number
  /** It is all of its file. */
  readonly isOnly: boolean
  readonly referred: ReferredPlace | undefined
}
const REPEATED_ZEROS = -1
/** As in the original; and for all files, a bootstrap of half a GiB. */
const MAX_FILE_CHUNKS = 2 ** 24
const MAX_LISTED_CHUNKS = 2 ** 26
/** Chunks of a batch, with those that have no bytes in it. */
const MAX_PENDING = 4096

/** What is stored: a chunk by its slot in the batch; without a record, a pack by its slot in the packs. */
interface Fresh {
  readonly slot: number
  readonly id: ChunkId
  readonly referred: ReferredPlace | undefined
}

/** One batch under way. */
interface Job {
  readonly batch: ChunkBatch
  readonly pending: Pending[]
  /** In order. */
  readonly fresh: Fresh[]
  /** Packs that are full. */
  packs: ChunkBatch | undefined
  /** Steps under way. */
  working: number
  state: 'filling' | 'digesting' | 'digested' | 'compressing' | 'compressed'
}

/**
 * Cuts contents into chunks, and stores each new one once. Bytes are digested and compressed by many threads, batch by batch; what is a duplicate
 * is decided, and what is new is stored, strictly in the order of the contents, so that the blob does not depend on the number of threads.
 * No more than a fixed number of batches is in memory. One content at a time; `finish` comes last. Any error ends all.
 */
export class ChunkPipeline {
  readonly #options: PipelineOptions
  readonly #work: ChunkWork
  readonly #free: ChunkBatch[] = []
  readonly #freePacks: ChunkBatch[] = []
  readonly #packer: ChunkPacker | undefined
  readonly #jobs: Job[] = []
  readonly #capacity: number
  readonly #maxBatches: number
  readonly #ids = new Map<ChunkBatch, number>()
  #batches = 0
  #current: Job | undefined
  #submitted = 0
  #listed = 0
  #error: unknown
  #wake: (() => void) | undefined
  #storing = false
  /** The digest of a whole chunk of zeros, once one was decided on. */
  #zeros: { readonly bytes: Uint8Array; digest: Uint8Array | undefined } | undefined

  constructor(options: PipelineOptions) {
    this.#options = options
    this.#work = createChunkWork(options.algorithms)
    this.#capacity = Math.max(BATCH_BYTES, options.chunkSize)
    const { packs, algorithms } = options
    this.#packer = packs === undefined ? undefined : new ChunkPacker(packs.size, algorithms.cipher !== undefined)
    const budget = Math.min(BATCHES_BYTES, (options.workers.size + 1) * THREAD_BYTES)
    const bytes = 2 * (packs === undefined ? this.#capacity : this.#capacity + this.#packsCapacity)
    const least = packs === undefined ? MIN_BATCHES : MIN_PACKING_BATCHES
    this.#maxBatches = Math.max(least, Math.min(MAX_BATCHES, Math.floor(budget / bytes)))
  }

  /**
   * Adds one file. Its list fills up while the pipeline works and is complete after `finish`; it comes at once when nothing has to be waited for. Throws
   * BuilderError 'SOURCE_CHANGED' when the content is shorter than `size`.
   */
  add(content: Content): Promise<ChunkList> | ChunkList {
    const chunks = this.#options.chunks.addList(this.#count(content))
    const job = chunks.count === 1 ? this.#roomNow(content.size) : undefined
    if (job === undefined) return this.#addLater(content, chunks)
    const into = job.batch.input.subarray(job.batch.filled, job.batch.filled + content.size)
    const reading = content.read(into)
    if (reading !== into.length) return this.#addRead(content, chunks, job, into, reading)
    this.#append(job, chunks, 0, into, content.place)
    return chunks
  }

  /** A file of one chunk of which not all was at hand. */
  async #addRead(
    content: Content,
    chunks: ChunkList,
    job: Job,
    into: Uint8Array,
    reading: Promise<number> | number,
  ): Promise<ChunkList> {
    await fill(content, into, 0, await reading)
    this.#append(job, chunks, 0, into, content.place)
    return chunks
  }

  async #addLater(content: Content, chunks: ChunkList): Promise<ChunkList> {
    const { chunkSize } = this.#options
    const { size } = content
    for (let offset = 0, at = 0; offset < size; offset += chunkSize, at += 1) {
      const length = Math.min(chunkSize, size - offset)
      const job = this.#roomNow(length) ?? (await this.#room(length))
      if (
        length === chunkSize &&
        this.#zeros?.digest !== undefined &&
        content.holes !== undefined &&
        content.holes.nextData(offset) >= offset + length
      ) {
        content.holes.skip(length)
        job.pending.push({
          place: chunks.start + at,
          slot: REPEATED_ZEROS,
          isOnly: chunks.count === 1,
          referred: undefined,
        })
        continue
      }
      const into = job.batch.input.subarray(job.batch.filled, job.batch.filled + length)
      await fill(content, into, offset, 0)
      this.#append(job, chunks, at, into, content.place)
    }
    return chunks
  }

  /** All that was added is stored after this. */
  async finish(): Promise<void> {
    this.#flush()
    while (this.#jobs.length > 0) await this.#turn()
    if (this.#packer?.isEmpty === false) {
      this.#endPack(await this.#room(0))
      this.#flush()
      while (this.#jobs.length > 0) await this.#turn()
    }
    this.#check()
  }

  /** Frees what the threads know of this build. Tasks under way may still touch their batches: they are not reused. */
  close(): void {
    this.#error ??= new BuilderError('ABORTED', 'the build was ended')
    for (const id of this.#ids.values()) this.#options.workers.release(id)
    this.#ids.clear()
    this.#free.length = 0
    this.#freePacks.length = 0
  }

  /** Chunks of a file, bounded: a few bytes of a crafted archive can announce a file of zeros that takes all memory to list. */
  #count(content: Content): number {
    const { size } = content
    const count = Math.ceil(size / this.#options.chunkSize)
    this.#listed += count
    if (count <= MAX_FILE_CHUNKS && this.#listed <= MAX_LISTED_CHUNKS) return count
    throw new BuilderError(
      'TOO_LARGE',
      `${content.name} has ${size} bytes, ${count} chunks; a file may have ${MAX_FILE_CHUNKS} and all together ${MAX_LISTED_CHUNKS}: use a larger chunk size`,
    )
  }

  #append(
    job: Job,
    { start, count }: ChunkList,
    at: number,
    bytes: Uint8Array,
    referred: ReferredPlace | undefined,
  ): void {
    const [place, isOnly] = [start + at, count === 1]
    if (bytes.length === this.#options.chunkSize && this.#isZeros(bytes)) {
      if (this.#zeros?.digest !== undefined) {
        job.pending.push({ place, slot: REPEATED_ZEROS, isOnly, referred })
        return
      }
    }
    this.#submitted += bytes.length
    job.pending.push({ place, slot: job.batch.add(bytes.length), isOnly, referred })
  }

  #isZeros(bytes: Uint8Array): boolean {
    // Nearly all chunks are told apart by their first or last word, before the comparison.
    if (bytes[0] !== 0 || bytes[bytes.length - 1] !== 0 || bytes[bytes.length >>> 1] !== 0) return false
    this.#zeros ??= { bytes: new Uint8Array(bytes.length), digest: undefined }
    return Buffer.compare(bytes, this.#zeros.bytes) === 0
  }

  /** A batch with room for `length` bytes, when there is one without waiting. */
  #roomNow(length: number): Job | undefined {
    this.#check()
    if (this.#current !== undefined) {
      if (this.#current.batch.hasRoom(length) && this.#current.pending.length < MAX_PENDING) return this.#current
      this.#flush()
    }
    const batch = this.#free.pop() ?? this.#createBatch()
    if (batch === undefined) return undefined
    batch.clear()
    this.#current = { batch, pending: [], fresh: [], packs: undefined, working: 0, state: 'filling' }
    return this.#current
  }

  async #room(length: number): Promise<Job> {
    for (;;) {
      const job = this.#roomNow(length)
      if (job !== undefined) return job
      await this.#turn()
    }
  }

  #createBatch(): ChunkBatch | undefined {
    if (this.#batches >= this.#maxBatches) return undefined
    this.#batches += 1
    return this.#open(this.#capacity)
  }

  #open(capacity: number): ChunkBatch {
    const batch = ChunkBatch.create(capacity)
    this.#ids.set(batch, this.#options.workers.open(batch, this.#options.algorithms))
    return batch
  }

  /** For all packs that the chunks of one batch can fill, with what was there before; the last chunk may have been smaller than the room it takes. */
  get #packsCapacity(): number {
    return this.#capacity + (this.#options.packs?.size ?? 0) + MIN_ROOM
  }

  /** Waits until some job has moved on. */
  async #turn(): Promise<void> {
    this.#check()
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    await promise
    this.#check()
  }

  #check(): void {
    if (this.#error !== undefined) throw this.#error
  }

  #fail(error: unknown): void {
    this.#error ??= error
    this.#wake?.()
  }

  #flush(): void {
    const job = this.#current
    this.#current = undefined
    if (job === undefined) return
    this.#jobs.push(job)
    job.state = 'digesting'
    this.#run(job.batch, 'digest', () => {
      job.state = 'digested'
      this.#decide()
    })
  }

  /** Does a step of a job, here or in a thread, then goes on with `next`. */
  #run(batch: ChunkBatch, step: Step, next: () => void): void {
    if (batch.count === 0 || this.#submitted <= INLINE_BYTES) {
      this.#work(batch, batch.count, step)
      next()
      return
    }
    this.#options.workers
      .run(this.#ids.get(batch) ?? 0, batch.count, step)
      .then(next)
      .catch((error: unknown) => this.#fail(error))
  }

  /** Decides, in order, about all jobs whose digests are known. */
  #decide(): void {
    // A copy: on the main thread a job may be stored, and leave the list, within this loop.
    for (const job of this.#jobs.slice()) {
      if (job.state === 'digesting') break
      if (job.state !== 'digested') continue
      const { chunks } = this.#options
      for (const pending of job.pending)
        chunks.setUse(
          pending.place,
          pending.slot === REPEATED_ZEROS ? this.#zeroChunk() : this.#decideChunk(job, pending),
        )
      this.#compress(job)
    }
    this.#store()
  }

  #compress(job: Job): void {
    const { batch, packs, fresh } = job
    job.state = 'compressing'
    const done = (): void => {
      job.working -= 1
      if (job.working > 0) return
      job.state = 'compressed'
      this.#store()
    }
    job.working = packs === undefined ? 1 : 2
    if (packs !== undefined) this.#run(packs, 'pack', done)
    if (fresh.length === 0 || storesPlain(this.#options.algorithms)) done()
    else this.#run(batch, 'compress', done)
  }

  #decideChunk(job: Job, { slot, isOnly, referred }: Pending): ChunkId {
    const { batch } = job
    const { dictionary, chunkSize, algorithms } = this.#options
    const length = batch.length(slot)
    const digest = batch.digest(slot)
    if (
      this.#zeros !== undefined &&
      this.#zeros.digest === undefined &&
      length === chunkSize &&
      this.#isZeros(batch.chunk(slot))
    )
      this.#zeros.digest = digest.slice()
    const known = dictionary.find(digest, length)
    if (known !== 0) {
      batch.setStored(slot, SKIP, false)
      return known
    }
    const encrypted = algorithms.cipher !== undefined
    const id = dictionary.add({ digest, uncompressedSize: length, encrypted })
    const isPacked = isOnly && this.#packer?.takes(length) === true
    if (!isPacked || this.#packer?.hasRoom(length) === false) this.#endPack(job)
    if (isPacked) this.#packer?.add(batch.chunk(slot))
    batch.setStored(slot, isPacked ? PACKED : 0, false)
    job.fresh.push({ slot, id, referred })
    return id
  }

  /** Whatever is stored alone ends the pack before it. */
  #endPack(job: Job): void {
    if (this.#packer?.isEmpty !== false) return
    job.packs ??= this.#freePacks.pop() ?? this.#open(this.#packsCapacity)
    job.fresh.push({ slot: this.#packer.moveInto(job.packs), id: 0, referred: undefined })
  }

  #zeroChunk(): ChunkId {
    const { digest } = this.#zeros ?? {}
    const id = digest === undefined ? 0 : this.#options.dictionary.find(digest, this.#options.chunkSize)
    if (id === 0) throw new BuilderError('READBACK', 'a chunk of zeros was taken for a repeated one') // decided in order: the first is in the dictionary
    return id
  }

  /** Stores, in order, the chunks of all jobs that are compressed; one run at a time. */
  #store(): void {
    if (this.#storing) return
    this.#storing = true
    this.#storeReady().catch((error: unknown) => this.#fail(error))
  }

  async #storeReady(): Promise<void> {
    try {
      for (let job = this.#jobs[0]; job?.state === 'compressed' && this.#error === undefined; job = this.#jobs[0]) {
        await this.#storeJob(job)
        this.#jobs.shift()
        this.#free.push(job.batch)
        if (job.packs !== undefined) this.#freePacks.push(job.packs)
        job.packs?.clear()
        this.#wake?.()
      }
    } finally {
      // In the same turn in which nothing was found ready: no job is overlooked between the two.
      this.#storing = false
    }
  }

  async #storeJob({ batch, packs, fresh }: Job): Promise<void> {
    for (const { slot, id, referred } of fresh) {
      const storing = id === 0 ? this.#storePack(packs, slot) : this.#storeChunk(batch, slot, id, referred)
      if (storing !== undefined) await storing
      const { keep, dictionary } = this.#options
      const keeping = id === 0 ? undefined : keep?.(dictionary.chunk(id), batch.chunk(slot))
      if (keeping !== undefined) await keeping
    }
    const settling = this.#options.settle?.()
    if (settling !== undefined) await settling
  }

  #storeChunk(batch: ChunkBatch, slot: number, id: ChunkId, referred: ReferredPlace | undefined): Promise<void> | void {
    const record = this.#options.dictionary.chunk(id)
    record.crc32c = batch.crc32c(slot)
    if (batch.storedSize(slot) === PACKED) return this.#options.packs?.add(record)
    record.compressed = batch.isCompressed(slot)
    return this.#options.store(record, batch.stored(slot), referred)
  }

  #storePack(packs: ChunkBatch | undefined, slot: number): Promise<void> | void {
    if (packs !== undefined) return this.#options.packs?.store(packs.stored(slot), packs.length(slot))
  }
}
