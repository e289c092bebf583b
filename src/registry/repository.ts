import type { Digest } from './digest.ts'
import type { Descriptor, ParsedManifest } from './manifest.ts'
import type { Reference } from './reference.ts'

export interface RequestOptions {
  readonly signal?: AbortSignal
}
export interface ManifestOptions extends RequestOptions {
  /** Media types to ask for; by default all OCI and Docker manifests and indexes. */
  readonly accept?: readonly string[]
}
/** A manifest as the registry sent it; `bytes` were compared with `descriptor.digest`. */
export interface Manifest {
  readonly descriptor: Descriptor
  readonly bytes: Uint8Array
  readonly parsed: ParsedManifest
}
export interface RangeOptions extends RequestOptions {
  /** Told as bytes arrive: `into[0..filled)` is there. */
  readonly onFilled?: (filled: number) => void
  /** Proxies are told; default `demand`. */
  readonly purpose?: 'demand' | 'prefetch'
  /** Past mirrors and what proxies distribute, since what came was wrong. */
  readonly fromSource?: boolean
}
export interface BlobStreamOptions extends RequestOptions {
  /** Where to start; from 0 the digest is verified at the end, from elsewhere only the length can be. */
  readonly offset?: number
  /** The length that the manifest gives; another length is 'BAD_RESPONSE'. */
  readonly size?: number
}
/** A blob to upload. `open` is called again for each try and must give the same bytes. */
export interface BlobSource {
  readonly digest: Digest
  readonly size: number
  open(): AsyncIterable<Uint8Array>
}
export interface UploadOptions extends RequestOptions {
  /** PATCH in pieces of this many bytes instead of one PUT. */
  readonly chunkBytes?: number
  /** Repositories of the same registry that may hold the blob: asked to mount it from there first. */
  readonly mountFrom?: readonly string[]
  readonly onProgress?: (sentBytes: number) => void
}
export interface UploadResult {
  readonly digest: Digest
  readonly size: number
  /** How the blob came to be in the repository. */
  readonly outcome: 'uploaded' | 'existed' | 'mounted'
}

/** One repository of one registry. Any number of calls at once. Made by `RegistryClient.repository`. */
export interface Repository {
  /** As given, tag and digest included. */
  readonly reference: Reference
  /** `ref` is a tag or a digest. 'DIGEST_MISMATCH', 'BAD_MANIFEST', 'NOT_FOUND', … */
  manifest(ref: string, options?: ManifestOptions): Promise<Manifest>
  /** HEAD, or GET where HEAD gives no digest. */
  resolve(ref: string, options?: ManifestOptions): Promise<Descriptor>
  tags(options?: RequestOptions): Promise<string[]>
  /** A small blob (a config, a bootstrap) whole and verified; longer than `maxBytes` is 'BAD_RESPONSE'. */
  blob(digest: Digest, maxBytes: number, options?: RequestOptions): Promise<Uint8Array>
  /** The blob from `offset`, resumed by Range after broken bodies; digest and length verified before the stream ends normally. Chunks are the reader's to keep. */
  blobStream(digest: Digest, options?: BlobStreamOptions): AsyncGenerator<Uint8Array, void, undefined>
  /** Fills `into` with the blob's bytes from `offset` or throws. Bytes are not verified here: the caller knows the chunks' digests. */
  readRange(digest: Digest, offset: number, into: Uint8Array, options?: RangeOptions): Promise<void>
  blobExists(digest: Digest, options?: RequestOptions): Promise<boolean>
  blobSize(digest: Digest, options?: RequestOptions): Promise<number>
  /** Asks to take the blob over from another repository of the registry; false when the registry will not. */
  mountBlob(digest: Digest, from: string, options?: RequestOptions): Promise<boolean>
  /** Looks, mounts or uploads; what is there already is not sent again. */
  uploadBlob(blob: BlobSource, options?: UploadOptions): Promise<UploadResult>
  /** For content whose digest is known only at its end: chunked, hashed while it flows. Not retried as a whole; a piece is. */
  uploadStream(source: AsyncIterable<Uint8Array>, options?: UploadOptions): Promise<UploadResult>
  /** `ref` is a tag or the manifest's digest. */
  pushManifest(ref: string, bytes: Uint8Array, mediaType: string, options?: RequestOptions): Promise<Descriptor>
  deleteManifest(ref: string, options?: RequestOptions): Promise<void>
  /** Manifests whose subject is `digest`; by the referrers API, else by the tag scheme. `atMost`: so many, no further page of the list is asked for then. */
  referrers(
    digest: Digest,
    options?: RequestOptions & { readonly artifactType?: string; readonly atMost?: number },
  ): Promise<Descriptor[]>
}
