import type { LayerOptions } from '../builder/index.ts'
import type { Descriptor, Digest, Platform, Repository } from '../registry/index.ts'
import type { ConvertedLayer } from './layer.ts'
import type { PushRetry } from './push-retry.ts'

/** What is to be converted into what. */
export interface ConversionRequest {
  readonly source: Repository
  /** Its reference has a tag. */
  readonly target: Repository
  readonly platforms: readonly Platform[] | 'all'
  readonly chunkSize: number
  readonly compression: LayerOptions['compression']
  /** Absolute paths in the image whose files nodes fetch first. */
  readonly prefetchPaths: readonly string[]
  /** A Nydus image whose chunks are not stored again. */
  readonly dictionary: Repository | undefined
  readonly toOci: boolean
  readonly withReferrer: boolean
  /** An index with the plain image and the Nydus image, for each platform. */
  readonly isMerged: boolean
  /** Under this tag of the target's repository goes the image as Docker's storage driver takes it: the bootstrap is its only layer. */
  readonly graphDriverTag: string | undefined
  /** Goes into an annotation; starts with `v`. */
  readonly builderVersion: string
  /** Blobs lie here, a layer each, until they are uploaded. Made if absent, and then removed. */
  readonly workDirectory: string
  readonly retry: PushRetry
}

/** Told while it runs. */
export interface ConversionWatch {
  /** The source is known: stored bytes of all its layers. */
  onSource(bytes: number): void
  onRead(bytes: number): void
  onLayer(layer: Descriptor, converted: ConvertedLayer): void
}

/** What came of it. */
export interface ConvertedImage {
  /** Of the manifest or index under the target's tag. */
  readonly digest: Digest
  /** Bytes of layers and configs. */
  readonly sourceSize: number
  readonly targetSize: number
  /** Milliseconds: until the source was known; until its layers were read, converted and uploaded; for the rest. */
  readonly pullMs: number
  readonly convertMs: number
  readonly pushMs: number
}
