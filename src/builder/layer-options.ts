import type { BlobCipher } from '../blob/index.ts'
import type { CompressionName, DigestName } from '../codec/index.ts'
import type { Bootstrap } from '../rafs/index.ts'
import type { Attributes } from './attributes.ts'
import type { KeepChunk } from './chunk-pipeline.ts'
import type { ChunkDictionary } from './dictionary.ts'
import type { OnLost } from './losses.ts'
import type { PrefetchPolicy } from './prefetch.ts'
import type { WhiteoutSpec } from './whiteout.ts'

/** How a layer is built. */
export interface LayerOptions {
  /** Of RAFS. v5 takes no table of contents. */
  readonly version: 5 | 6
  /** v5: chunks start at multiples of 4096 in the uncompressed address space; v6 has them so anyway. */
  readonly alignedChunks: boolean
  /** Bytes; a power of two from 4 KiB to 16 MiB. */
  readonly chunkSize: number
  readonly compression: Exclude<CompressionName, 'gzip'>
  readonly digest: DigestName
  /** Files smaller than half of this are stored together, in batches of up to so many bytes; a power of two, no more than `chunkSize`. 0: each alone. v6 only. */
  readonly batchSize: number
  /** Chunks are encrypted with it, and the bootstrap keeps it; v6 only. */
  readonly cipher: BlobCipher | undefined
  /** False: every owner becomes 0:0, and the image says that owners mean nothing. */
  readonly keepOwners: boolean
  /** The bootstrap goes into the blob, which is the only output then. */
  readonly inlineBootstrap: boolean
  /** The blob ends with a table of contents and holds the digests of its chunks. */
  readonly blobToc: boolean
  /** The blob's id instead of its digest; not with an inlined bootstrap. */
  readonly blobId: string | undefined
  /** Bytes before the blob in the file that readers will get; 0 when the blob is that file. */
  readonly blobOffset: number
  /** How a directory marks deletions, and a layer over `parent`. Markers of a tar without parent stay as they are, for a merge. */
  readonly whiteoutSpec: WhiteoutSpec
  /** Absolute paths in the image, as `parsePrefetchPatterns` gives them. */
  readonly prefetch: { readonly policy: PrefetchPolicy; readonly paths: readonly string[] }
  /** The layer, a gzip, stays the blob; what is written tells where its chunks are. For v6 and SHA-256, without `blobId`; `compression` is not used then. */
  readonly reference?: boolean | undefined
  /** Chunks that need not be stored again. */
  readonly dictionary: ChunkDictionary | undefined
  /** Of a directory: which files are in blobs of other backends. Undefined: none, and no bootstrap of such. */
  readonly attributes?: Attributes | undefined
  /** The image that the layer is laid over; the result is the whole image then. */
  readonly parent: Bootstrap | undefined
}

/** What a build needs while it runs. */
export interface LayerRun {
  /** Aborting ends the build with the signal's reason. */
  readonly signal: AbortSignal
  /** Told of what the image cannot hold, which is left out; without it that throws 'BAD_SOURCE'. */
  readonly onLost?: OnLost | undefined
  /** Takes the blob's bytes in order; they are valid until the promise settles. */
  readonly sink: (bytes: Uint8Array) => Promise<void> | void
  /** Takes the plain bytes of each chunk that is stored, by ascending places; for who makes a cache besides, or instead. */
  readonly keep?: KeepChunk | undefined
  /** Takes, besides, the blob's compression context in the form of the cache; each piece is valid until the next one. There is none in v5, and of a blob without chunks. */
  readonly keepMeta?: ((pieces: Iterable<Uint8Array>) => Promise<void>) | undefined
  /** What a plain archive has, where that is known: the threads for it start at once. */
  readonly sourceBytes?: number | undefined
}
