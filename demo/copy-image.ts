/** Takes an image of another registry into the demo's own, so that both ways of starting it use the same network. */
import pLimit from 'p-limit'
import {
  anonymous,
  type Descriptor,
  fromDockerConfig,
  hostPlatform,
  type Manifest,
  parseReference,
  RegistryClient,
  type Repository,
  referenceTarget,
  selectPlatform,
} from '../src/registry/index.ts'

export interface CopyOptions {
  /** `REGISTRY/NAME:TAG`; the logins of `docker login` are used. */
  readonly from: string
  /** A reference in a registry that speaks plain HTTP. */
  readonly to: string
  readonly signal: AbortSignal
  readonly onProgress: (copiedBytes: number, totalBytes: number) => void
}

const BLOBS_AT_ONCE = 3

/** Copies the image for this machine. Throws RegistryError, or says that there is none for it. */
export async function copyImage(options: CopyOptions): Promise<void> {
  const { signal } = options
  const source = new RegistryClient({ credentials: fromDockerConfig() })
  const target = new RegistryClient({ credentials: anonymous(), plainHttp: 'always' })
  try {
    const from = source.repository(parseReference(options.from))
    const to = target.repository(parseReference(options.to))
    const { bytes, descriptor, parsed } = await manifestFor(from, options)
    if (parsed.kind !== 'image') throw new Error(`${options.from} is an index of indexes`)
    const blobs = [parsed.image.config, ...parsed.image.layers]
    const total = blobs.reduce((sum, { size }) => sum + size, 0)
    let copied = 0
    const limit = pLimit(BLOBS_AT_ONCE)
    const copy = (blob: Descriptor): Promise<unknown> =>
      to.uploadBlob(
        { ...blob, open: () => counted(from.blobStream(blob.digest, { size: blob.size, signal })) },
        { signal },
      )
    const counted = async function* (stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
      for await (const piece of stream) {
        options.onProgress((copied += piece.length), total)
        yield piece
      }
    }
    await Promise.all(blobs.map((blob) => limit(() => copy(blob))))
    const { tag = 'latest' } = to.reference
    await to.pushManifest(tag, bytes, descriptor.mediaType, { signal })
  } finally {
    await Promise.all([source.close(), target.close()])
  }
}

async function manifestFor(from: Repository, { signal, from: name }: CopyOptions): Promise<Manifest> {
  const manifest = await from.manifest(referenceTarget(from.reference), { signal })
  if (manifest.parsed.kind === 'image') return manifest
  const chosen = selectPlatform(manifest.parsed.index, hostPlatform())
  if (chosen === undefined) throw new Error(`${name} has no image for this machine`)
  return from.manifest(chosen.digest, { signal })
}
