import { BUCKETS, FOP, FOP_COUNT, sizeBucket } from './metrics.ts'

/** What is recorded of an image's files; at least one is true. */
export interface RecordedOfFiles {
  /** `iostats_files`: operations and bytes of each file. */
  readonly counts: boolean
  /** `access_pattern`: how often each file was read, and when first. */
  readonly pattern: boolean
  /** `latest_read_files`: which files were read since somebody asked. */
  readonly latest: boolean
}

/** The memory of one image's records, as threads share it: a table a thread, of which that thread alone writes. */
export interface FileRecording {
  readonly recorded: RecordedOfFiles
  readonly capacity: number
  readonly tables: readonly SharedArrayBuffer[]
}

/** Where a number stands in a file's record. */
const AT = {
  ino: 0,
  total: 1,
  bytes: 2,
  sizes: 3,
  hits: 11,
  reads: 26,
  seconds: 27,
  nanoseconds: 28,
  size: 29,
} as const
/** Number of records, before the places of the hash table. */
const USED = 0
const HEAD_WORDS = 2
/** Files beyond so many are not recorded: their records would take a gigabyte. */
const MAX_FILES = 1 << 22
/** 2^32 divided by the golden ratio: neighbouring inode numbers are spread over the table. */
const SPREAD = 0x9e3779b1

/** Memory for an image of at most `files` inodes, for so many threads. It is taken from the system as it is used. */
export function recordFiles(recorded: RecordedOfFiles, files: number, threads: number): FileRecording {
  const capacity = Math.max(1, Math.min(files, MAX_FILES))
  const { bytes } = layoutOf(capacity)
  return { recorded, capacity, tables: Array.from({ length: threads }, () => new SharedArrayBuffer(bytes)) }
}

function layoutOf(capacity: number): { places: number; recentAt: number; recordsAt: number; bytes: number } {
  const places = 2 ** Math.ceil(Math.log2(2 * capacity))
  const recentAt = 4 * (HEAD_WORDS + places)
  const recordsAt = recentAt + 8 * Math.ceil(capacity / 2)
  return { places, recentAt, recordsAt, bytes: recordsAt + 8 * AT.size * capacity }
}

/** The table of one thread. Nothing is allocated for an operation. */
export class FileCounters {
  readonly #recorded: RecordedOfFiles
  readonly #capacity: number
  readonly #mask: number
  readonly #shift: number
  readonly #words: Int32Array<SharedArrayBuffer>
  readonly #recent: Int32Array<SharedArrayBuffer>
  readonly #records: Float64Array<SharedArrayBuffer>

  constructor({ recorded, capacity, tables }: FileRecording, thread: number) {
    const { places, recentAt, recordsAt } = layoutOf(capacity)
    const table = tables[thread]
    this.#recorded = recorded
    this.#capacity = capacity
    this.#mask = places - 1
    this.#shift = 32 - Math.log2(places)
    this.#words = new Int32Array(table, 0, HEAD_WORDS + places)
    this.#recent = new Int32Array(table, recentAt, capacity)
    this.#records = new Float64Array(table, recordsAt, AT.size * capacity)
  }

  /** A name of the file was looked up or listed: it is there, even if nothing else happens to it. */
  seen(ino: number): void {
    if (this.#recorded.counts) this.#recordOf(ino)
  }

  /** An operation but a read; failed ones count too, as upstream has it. */
  operation(ino: number, fop: number): void {
    if (!this.#recorded.counts) return
    const at = this.#recordOf(ino)
    if (at >= 0) this.#count(at, fop)
  }

  /** A read that was answered with so many bytes; -1 = that failed. */
  read(ino: number, bytes: number): void {
    const at = this.#recordOf(ino)
    if (at < 0) return
    const records = this.#records
    if (this.#recorded.counts) {
      this.#count(at, FOP.Read)
      if (bytes > 0) records[at + AT.bytes] += bytes
      records[at + AT.sizes + sizeBucket(Math.max(0, bytes))]++
    }
    records[at + AT.reads]++
    if (records[at + AT.reads] === 1) this.#noteTime(at)
    if (bytes >= 0 && this.#recorded.latest) this.#recent[at / AT.size] = 1
  }

  /** Calls `visit` with the numbers of each file. */
  forEach(visit: (numbers: Float64Array) => void): void {
    const used = Atomics.load(this.#words, USED)
    for (let record = 0; record < used; record++)
      visit(this.#records.subarray(record * AT.size, (record + 1) * AT.size))
  }

  /** Files read since the last call, which forgets them. */
  takeRecent(into: Set<number>): void {
    const used = Atomics.load(this.#words, USED)
    for (let record = 0; record < used; record++)
      if (Atomics.exchange(this.#recent, record, 0) === 1) into.add(this.#records[record * AT.size + AT.ino])
  }

  #count(at: number, fop: number): void {
    this.#records[at + AT.hits + fop]++
    this.#records[at + AT.total]++
  }

  #noteTime(at: number): void {
    const now = Date.now()
    this.#records[at + AT.seconds] = Math.floor(now / 1000)
    this.#records[at + AT.nanoseconds] = (now % 1000) * 1e6
  }

  /** Where a file's record begins; -1 when there is no room for one more. */
  #recordOf(ino: number): number {
    const words = this.#words
    let place = Math.imul(ino | 0, SPREAD) >>> this.#shift
    for (;;) {
      const record = words[HEAD_WORDS + place] - 1
      if (record < 0) return this.#add(ino, place)
      if (this.#records[record * AT.size + AT.ino] === ino) return record * AT.size
      place = (place + 1) & this.#mask
    }
  }

  #add(ino: number, place: number): number {
    const record = this.#words[USED]
    if (record >= this.#capacity) return -1
    this.#records[record * AT.size + AT.ino] = ino
    this.#words[HEAD_WORDS + place] = record + 1
    Atomics.store(this.#words, USED, record + 1)
    return record * AT.size
  }
}

/** `GET /api/v1/metrics/files`: by inode number. `fop_errors` stays 0 upstream, too. */
export interface FileMetricsJson {
  readonly total_fops: number
  readonly data_read: number
  readonly block_count_read: readonly number[]
  readonly fop_hits: readonly number[]
  readonly fop_errors: readonly number[]
}

/** `GET /api/v1/metrics/pattern`. */
export interface AccessPatternJson {
  readonly ino: number
  readonly nr_read: number
  readonly first_access_time_secs: number
  readonly first_access_time_nanos: number
}

/** What all threads recorded of an image's files. */
export class FileMetrics {
  readonly #recorded: RecordedOfFiles
  readonly #tables: readonly FileCounters[]

  constructor(recording: FileRecording) {
    this.#recorded = recording.recorded
    this.#tables = recording.tables.map((_table, thread) => new FileCounters(recording, thread))
  }

  files(): Record<string, FileMetricsJson> {
    if (!this.#recorded.counts) return {}
    const part = (sum: Float64Array, at: number, count: number): number[] => [...sum.subarray(at, at + count)]
    return Object.fromEntries(
      [...this.#sums()].map(([ino, sum]) => [
        String(ino),
        {
          total_fops: sum[AT.total],
          data_read: sum[AT.bytes],
          block_count_read: part(sum, AT.sizes, BUCKETS),
          fop_hits: part(sum, AT.hits, FOP_COUNT),
          fop_errors: Array.from({ length: FOP_COUNT }, () => 0),
        },
      ]),
    )
  }

  pattern(): AccessPatternJson[] {
    if (!this.#recorded.pattern) return []
    return [...this.#sums()]
      .filter(([, sum]) => sum[AT.reads] > 0)
      .map(([ino, sum]) => ({
        ino,
        nr_read: sum[AT.reads],
        first_access_time_secs: sum[AT.seconds],
        first_access_time_nanos: sum[AT.nanoseconds],
      }))
  }

  /** Ranges of inodes read since the last call: `[first, last]`, or `[only]`. */
  takeLatest(): number[][] {
    const recent = new Set<number>()
    for (const table of this.#tables) table.takeRecent(recent)
    const ranges: number[][] = []
    for (const ino of [...recent].sort((a, b) => a - b)) {
      const last = ranges.at(-1)
      if (last?.at(-1) === ino - 1) last[1] = ino
      else ranges.push([ino])
    }
    return ranges
  }

  #sums(): ReadonlyMap<number, Float64Array> {
    const sums = new Map<number, Float64Array>()
    for (const table of this.#tables)
      table.forEach((numbers) => {
        const sum = sums.get(numbers[AT.ino])
        if (sum === undefined) sums.set(numbers[AT.ino], Float64Array.from(numbers))
        else addTo(sum, numbers)
      })
    return sums
  }
}

function addTo(sum: Float64Array, numbers: Float64Array): void {
  const isFirst = numbers[AT.reads] > 0 && (sum[AT.reads] === 0 || timeOf(numbers) < timeOf(sum))
  for (let index = AT.total; index <= AT.reads; index++) sum[index] += numbers[index]
  if (isFirst) sum.set(numbers.subarray(AT.seconds, AT.size), AT.seconds)
}

function timeOf(numbers: Float64Array): number {
  return numbers[AT.seconds] * 1e9 + numbers[AT.nanoseconds]
}
