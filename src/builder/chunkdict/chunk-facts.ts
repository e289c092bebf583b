import { BuilderError } from '../errors.ts'
import { StoredChunks } from './stored-chunks.ts'

/** One chunk as the database of a chunk dictionary has it: a version of an image names it. */
export interface ChunkFact {
  readonly image: string
  readonly version: string
  readonly blobId: string
  /** 64 hexadecimal digits. */
  readonly digest: string
  /** 0: it was not taken. */
  readonly crc32c: number
  readonly compressedSize: number
  readonly uncompressedSize: number
  readonly compressedOffset: number
  readonly uncompressedOffset: number
}

/** Where a chunk is stored, whichever images name it. */
export type StoredChunk = Omit<ChunkFact, 'image' | 'version'>

/** Rows of a database. With more, the search for what images have in common would not end today. */
const MAX_FACTS = 2 ** 22
/** A row is one number: release × this + place. */
const RELEASE = 2 ** 26

/**
 * All chunks of all images of a database. A row is one number, which stands for all that it says: two rows are equal when their numbers are. What many rows say is kept once.
 */
export class ChunkFacts {
  readonly #rows: number[] = []
  readonly #releases = new Names()
  readonly #images = new Names()
  readonly #digests = new Names()
  readonly #blobs = new Names()
  readonly #releaseImages: number[] = []
  readonly #releaseVersions: string[] = []
  readonly #places = new StoredChunks()

  /** Throws BuilderError 'TOO_LARGE'. */
  add(fact: ChunkFact): void {
    if (this.#rows.length >= MAX_FACTS)
      throw new BuilderError('TOO_LARGE', `the database has more than ${MAX_FACTS} chunks; use one for fewer images`)
    const image = this.#images.numberOf(fact.image)
    const release = this.#releases.numberOf(`${image} ${fact.version}`)
    this.#releaseImages[release] = image
    this.#releaseVersions[release] = fact.version
    const place = this.#places.numberOf([
      this.#blobs.numberOf(fact.blobId),
      this.#digests.numberOf(fact.digest),
      fact.crc32c,
      fact.compressedSize,
      fact.uncompressedSize,
      fact.compressedOffset,
      fact.uncompressedOffset,
    ])
    this.#rows.push(release * RELEASE + place)
  }

  /** In the order in which they were added. */
  get rows(): readonly number[] {
    return this.#rows
  }

  /** Number of the image that a row belongs to. */
  imageOf(row: number): number {
    return this.#releaseImages[this.releaseOf(row)] ?? 0
  }

  imageName(image: number): string {
    return this.#images.texts[image] ?? ''
  }

  /** Number of the version of the image that a row belongs to. */
  releaseOf(row: number): number {
    return Math.floor(row / RELEASE)
  }

  versionName(release: number): string {
    return this.#releaseVersions[release] ?? ''
  }

  /** Number of the chunk's place: the same for all images that name it. */
  placeOf(row: number): number {
    return row % RELEASE
  }

  /** Number of the blob that the chunk is in. */
  blobOf(row: number): number {
    return this.#places.field(row % RELEASE, 0)
  }

  digestOf(row: number): number {
    return this.#places.field(row % RELEASE, 1)
  }

  /** Stored bytes. */
  sizeOf(row: number): number {
    return this.#places.field(row % RELEASE, 3)
  }

  chunk(row: number): StoredChunk {
    const field = (number: number): number => this.#places.field(row % RELEASE, number)
    return {
      blobId: this.#blobs.texts[field(0)] ?? '',
      digest: this.#digests.texts[field(1)] ?? '',
      crc32c: field(2),
      compressedSize: field(3),
      uncompressedSize: field(4),
      compressedOffset: field(5),
      uncompressedOffset: field(6),
    }
  }
}

/** Numbers for texts, in the order in which they are first met. */
class Names {
  readonly #numbers = new Map<string, number>()
  readonly texts: string[] = []

  numberOf(text: string): number {
    const known = this.#numbers.get(text)
    if (known !== undefined) return known
    this.#numbers.set(text, this.texts.length)
    return this.texts.push(text) - 1
  }
}
