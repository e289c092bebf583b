import {
  type BlobSource,
  type BlobStreamOptions,
  type Descriptor,
  type Digest,
  digestOf,
  formatReference,
  type Manifest,
  type ManifestOptions,
  MEDIA_TYPES,
  parseDigest,
  parseManifest,
  type Reference,
  RegistryError,
  type Repository,
  type RequestOptions,
  type UploadOptions,
  type UploadResult,
} from '../../registry/index.ts'
import { ContentStore } from './content-store.ts'
import { childLabels } from './fetch-content.ts'
import { imageTarget, putImage } from './image-records.ts'
import type { Session } from './session.ts'

const MANIFEST_LIMIT = 8 * 1024 * 1024

/**
 * An image of a containerd's own store as if it were in a registry: what reads from one repository and writes to another works on it. A tag is the image's record; what is pushed under it replaces the
 * record, and keeps all that it refers to. What is not in the store is 'NOT_FOUND' of IntegrationError.
 */
export class StoreRepository implements Repository {
  readonly reference: Reference
  readonly #session: Session
  readonly #content: ContentStore
  readonly #name: string

  /** `name` is that of the image's record; the reference's full form by default. */
  constructor(session: Session, reference: Reference, name: string = formatReference(reference)) {
    this.reference = reference
    this.#session = session
    this.#content = new ContentStore(session)
    this.#name = name
  }

  async manifest(ref: string, options: ManifestOptions = {}): Promise<Manifest> {
    const named = isDigest(ref) ? undefined : await imageTarget(this.#session, this.#name)
    const digest = named?.digest ?? parseDigest(ref)
    const bytes = await this.#content.read(digest, MANIFEST_LIMIT, options.signal)
    const parsed = parseManifest(bytes, named?.mediaType ?? '')
    const own = parsed.kind === 'image' ? parsed.image.mediaType : parsed.index.mediaType
    const usual = parsed.kind === 'image' ? MEDIA_TYPES.ociManifest : MEDIA_TYPES.ociIndex
    return { descriptor: { mediaType: own ?? named?.mediaType ?? usual, digest, size: bytes.length }, bytes, parsed }
  }

  async resolve(ref: string, options: ManifestOptions = {}): Promise<Descriptor> {
    return (await this.manifest(ref, options)).descriptor
  }

  async blob(digest: Digest, maxBytes: number, options: RequestOptions = {}): Promise<Uint8Array> {
    return await this.#content.read(digest, maxBytes, options.signal)
  }

  blobStream(digest: Digest, options: BlobStreamOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    return this.#content.stream(digest, options.offset ?? 0, options.signal)
  }

  async blobExists(digest: Digest): Promise<boolean> {
    return (await this.#content.size(digest)) !== undefined
  }

  async uploadBlob(blob: BlobSource, options: UploadOptions = {}): Promise<UploadResult> {
    const { digest, size } = blob
    const open = (offset: number): AsyncIterable<Uint8Array> => from(blob.open(), offset)
    const written = await this.#content.write({ digest, size, ref: `upload-${digest}`, open }, options.signal)
    return { digest, size, outcome: written ? 'uploaded' : 'existed' }
  }

  async pushManifest(
    ref: string,
    bytes: Uint8Array,
    mediaType: string,
    options: RequestOptions = {},
  ): Promise<Descriptor> {
    const descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length }
    const open = async function* (offset: number): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(offset)
    }
    const content = { ...descriptor, ref: `manifest-${descriptor.digest}`, open }
    await this.#content.write(content, options.signal)
    await this.#content.label(descriptor.digest, childLabels(parseManifest(bytes, mediaType)))
    if (!isDigest(ref)) await putImage(this.#session, { name: this.#name, target: descriptor, labels: {} })
    return descriptor
  }

  tags(): Promise<string[]> {
    return unsupported('list tags')
  }

  readRange(): Promise<void> {
    return unsupported('read ranges')
  }

  blobSize(): Promise<number> {
    return unsupported('ask for sizes')
  }

  mountBlob(): Promise<boolean> {
    return Promise.resolve(false)
  }

  uploadStream(): Promise<UploadResult> {
    return unsupported('write content of unknown digest')
  }

  deleteManifest(): Promise<void> {
    return unsupported('delete manifests')
  }

  referrers(): Promise<Descriptor[]> {
    return unsupported('list referrers')
  }
}

async function unsupported<Result>(what: string): Promise<Result> {
  throw new RegistryError('UNSUPPORTED', `cannot ${what} in containerd's content store`)
}

function isDigest(ref: string): boolean {
  return ref.includes(':')
}

/** The rest of a stream from an offset on. */
async function* from(stream: AsyncIterable<Uint8Array>, offset: number): AsyncGenerator<Uint8Array> {
  let left = offset
  for await (const bytes of stream) {
    if (left < bytes.length) yield bytes.subarray(left)
    left = Math.max(0, left - bytes.length)
  }
}
