import type { BlobInfo } from '../blob/index.ts'

/** A layer that was built. */
export interface BuiltLayer {
  /** Plain, also where the blob has it compressed. An inlined one calls its own blob `xxx…`. */
  readonly bootstrap: Uint8Array
  /** The blob's compression context in the form of the cache's file, made when it is asked for; undefined when the layer stored no chunk. */
  readonly blobMeta: Uint8Array | undefined
  /** The blob's id as the original's builder computes it: its SHA-256, without the digest array where there is a table of contents. */
  readonly blobId: string
  /** Bytes that went into the sink. */
  readonly blobSize: number
  /** Blobs of the bootstrap's table, in its order. */
  readonly blobs: readonly BlobInfo[]
  /** Of them, the one that the layer's own chunks are in; undefined when it stored none. */
  readonly ownBlob?: BlobInfo | undefined
  /** Files whose data is elsewhere: a bootstrap of their own. With `attributes` only. */
  readonly external?: ExternalTree | undefined
  readonly counts: LayerCounts
}

export interface ExternalTree {
  readonly bootstrap: Uint8Array
  readonly blobs: readonly BlobInfo[]
}

export interface LayerCounts {
  /** Plain bytes of the chunks that were stored. */
  readonly storedBytes: number
  readonly duplicateChunks: number
  readonly duplicateBytes: number
  /** Seconds. */
  readonly treeSeconds: number
  readonly bootstrapSeconds: number
}
