/** How a data file keeps chunks: plain, as the blob stores them, or in encrypted pages. Source: docs/formats/cache.md, "Compressed caches" and "Encrypted caches". */
import { CIPHER_PAGE_BYTES, PageCipher } from '../codec/index.ts'
import type { ChunkInfo, VerifiedChunk } from '../blob/index.ts'
import { CacheError } from './errors.ts'

/** Bytes as they lie in a data file; of one that keeps stored bytes, what a chunk was decoded from: its own, those of its batch, or a slice of a gzip. */
export interface StoredUnit {
  readonly offset: number
  readonly bytes: Uint8Array
}

/** What a cache keeps of chunks, and under which key. */
export type CacheForm =
  | { readonly kind: 'plain' }
  | {
      readonly kind: 'stored'
      /** Length of the data file: the blob's, without what follows its chunks. */
      readonly size: number
    }
  | { readonly kind: 'encrypted'; readonly key: Uint8Array; readonly convergent: 'digest' | 'constant' | undefined }

/** The key of chunks whose digest upstream does not know, or whose digest is no key. Public: it hides nothing from those who look for it. */
const CONSTANT_KEY = Buffer.from('aced146994231eca448ced2f6b400c00fdbb3facddc7d9ee83f65cd93caa287c', 'hex')

/** Encrypted pages of chunks. */
export class ChunkPages {
  readonly #fixed: PageCipher | undefined
  readonly #writesDigest: boolean

  /** Throws CacheError 'BAD_OPTION' for a key that is none. */
  constructor({ key, convergent }: Extract<CacheForm, { kind: 'encrypted' }>) {
    try {
      const own = new PageCipher(key)
      this.#fixed = convergent === undefined ? own : undefined
    } catch (cause) {
      throw new CacheError('BAD_OPTION', 'cannot encrypt a cache: the key must have 32 bytes, whose halves differ', {
        cause,
      })
    }
    this.#writesDigest = convergent === 'digest'
  }

  /** Keys that a chunk may have been written with. */
  get ways(): number {
    return this.#fixed === undefined ? 2 : 1
  }

  encrypt(chunk: Pick<ChunkInfo, 'uncompressedOffset' | 'digest'>, bytes: VerifiedChunk): StoredUnit {
    const pages = new Uint8Array(pagesOf(bytes.length))
    pages.set(bytes)
    return { offset: chunk.uncompressedOffset, bytes: this.#cipher(chunk.digest, 0).encrypt(pages) }
  }

  /** The plain bytes, if the key of this way is right. */
  decrypt(digest: Uint8Array, pages: Uint8Array, way: number): Uint8Array {
    return this.#cipher(digest, way).decrypt(pages)
  }

  #cipher(digest: Uint8Array, way: number): PageCipher {
    if (this.#fixed !== undefined) return this.#fixed
    const isKey = Buffer.compare(digest.subarray(0, 16), digest.subarray(16)) !== 0
    return new PageCipher(isKey && this.#writesDigest === (way === 0) ? digest : CONSTANT_KEY)
  }
}

/** Bytes of the pages that hold so many. */
export function pagesOf(bytes: number): number {
  return Math.ceil(bytes / CIPHER_PAGE_BYTES) * CIPHER_PAGE_BYTES
}
