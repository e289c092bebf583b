import { BlobReads, NO_SIGNAL } from './blob-reads.ts'
import type { Digest } from './digest.ts'
import { RegistryError } from './errors.ts'
import { Listings } from './listings.ts'
import type { Descriptor } from './manifest.ts'
import { MANIFEST_TYPES } from './manifest.ts'
import { Manifests } from './manifests.ts'
import type { MirrorState } from './mirrors.ts'
import type { Reference } from './reference.ts'
import { isRepositoryName } from './reference.ts'
import type {
  BlobSource,
  BlobStreamOptions,
  Manifest,
  ManifestOptions,
  RangeOptions,
  Repository,
  RequestOptions,
  UploadOptions,
  UploadResult,
} from './repository.ts'
import type { Endpoint } from './endpoint.ts'
import type { Transport } from './transport.ts'
import { Uploads } from './uploads.ts'

/** The repository over HTTP: each group of methods is a part of its own. */
export class RemoteRepository implements Repository {
  readonly reference: Reference
  readonly #blobs: BlobReads
  readonly #uploads: Uploads
  readonly #manifests: Manifests
  readonly #listings: Listings

  constructor(parts: {
    reference: Reference
    transport: Transport
    endpoint: Endpoint
    mirrors: readonly MirrorState[]
  }) {
    const { reference, transport, endpoint, mirrors } = parts
    // The name goes into URLs: a reference that did not come from `parseReference` is checked here.
    if (!isRepositoryName(reference.repository)) {
      throw new RegistryError(
        'BAD_REFERENCE',
        `cannot use repository ${JSON.stringify(reference.repository.slice(0, 300))}: it is no repository name`,
      )
    }
    const { repository } = reference
    this.reference = reference
    this.#blobs = new BlobReads({ transport, endpoint, mirrors, repository })
    this.#uploads = new Uploads({ transport, endpoint, repository })
    this.#manifests = new Manifests({ transport, endpoint, repository })
    this.#listings = new Listings({ transport, endpoint, repository, manifests: this.#manifests })
  }

  manifest(ref: string, options: ManifestOptions = {}): Promise<Manifest> {
    return this.#manifests.get(ref, options.accept, options.signal ?? NO_SIGNAL)
  }

  resolve(ref: string, options: ManifestOptions = {}): Promise<Descriptor> {
    return this.#manifests.resolve(ref, options.accept, options.signal ?? NO_SIGNAL)
  }

  tags(options: RequestOptions = {}): Promise<string[]> {
    return this.#listings.tags(options.signal ?? NO_SIGNAL)
  }

  async blob(digest: Digest, maxBytes: number, options: RequestOptions = {}): Promise<Uint8Array> {
    const parts: Uint8Array[] = []
    let size = 0
    for await (const part of this.#blobs.stream(digest, options)) {
      size += part.length
      if (size > maxBytes)
        throw new RegistryError(
          'BAD_RESPONSE',
          `cannot read blob ${digest} of ${this.reference.repository}: more than ${maxBytes} bytes`,
        )
      parts.push(part)
    }
    return Buffer.concat(parts)
  }

  blobStream(digest: Digest, options: BlobStreamOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    return this.#blobs.stream(digest, options)
  }

  readRange(digest: Digest, offset: number, into: Uint8Array, options: RangeOptions = {}): Promise<void> {
    return this.#blobs.readRange(digest, offset, into, options)
  }

  blobExists(digest: Digest, options: RequestOptions = {}): Promise<boolean> {
    return this.#blobs.exists(digest, options.signal ?? NO_SIGNAL)
  }

  blobSize(digest: Digest, options: RequestOptions = {}): Promise<number> {
    return this.#blobs.size(digest, options.signal ?? NO_SIGNAL)
  }

  async mountBlob(digest: Digest, from: string, options: RequestOptions = {}): Promise<boolean> {
    const mounted = await this.#uploads.mount(digest, from, options.signal ?? NO_SIGNAL)
    if (mounted === true) return true
    await this.#uploads.cancel(mounted)
    return false
  }

  uploadBlob(blob: BlobSource, options: UploadOptions = {}): Promise<UploadResult> {
    return this.#uploads.upload(blob, options, options.signal ?? NO_SIGNAL)
  }

  uploadStream(source: AsyncIterable<Uint8Array>, options: UploadOptions = {}): Promise<UploadResult> {
    return this.#uploads.stream(source, options, options.signal ?? NO_SIGNAL)
  }

  async pushManifest(
    ref: string,
    bytes: Uint8Array,
    mediaType: string,
    options: RequestOptions = {},
  ): Promise<Descriptor> {
    const signal = options.signal ?? NO_SIGNAL
    const { descriptor, subjectKnown } = await this.#manifests.put({ ref, bytes, mediaType }, signal)
    // Only a manifest that names a subject needs the index that the registry does not keep.
    const mayRefer = MANIFEST_TYPES.includes(mediaType) && Buffer.from(bytes).includes('"subject"')
    if (mayRefer && !subjectKnown) await this.#listings.addReferrer(descriptor, bytes, signal)
    return descriptor
  }

  deleteManifest(ref: string, options: RequestOptions = {}): Promise<void> {
    return this.#manifests.delete(ref, options.signal ?? NO_SIGNAL)
  }

  referrers(
    digest: Digest,
    options: RequestOptions & { readonly artifactType?: string; readonly atMost?: number } = {},
  ): Promise<Descriptor[]> {
    return this.#listings.referrers(digest, options, options.signal ?? NO_SIGNAL)
  }
}
