import { join } from 'node:path'
import { type ChunkDictionary, type LayerOptions, openDictionary, writeWhole } from '../builder/index.ts'
import type { BlobInfo } from '../blob/index.ts'
import { type Bootstrap, openBootstrap } from '../rafs/index.ts'
import { type Digest, formatReference, type Platform, type Repository, sha256Digest } from '../registry/index.ts'
import { fetchBootstrapLayer } from './bootstrap-layer.ts'
import { ConvertError } from './errors.ts'
import type { BlobLayer } from './nydus-image.ts'
import type { PushRetry } from './push-retry.ts'
import { openPair } from './source-image.ts'

/** A Nydus image whose chunks need not be stored again. */
export interface DictionaryImage {
  readonly repository: Repository
  readonly image: Bootstrap
  readonly chunks: ChunkDictionary
}

/** Fetches the bootstrap of a dictionary image. Throws 'NO_IMAGE' when it is no Nydus image; BuilderError when its chunks do not fit the build. */
export async function fetchDictionary(
  repository: Repository,
  platform: Platform,
  workDirectory: string,
  options: Pick<LayerOptions, 'version' | 'chunkSize' | 'keepOwners' | 'digest'>,
  signal: AbortSignal,
): Promise<DictionaryImage> {
  const { nydus } = await openPair(repository, platform, signal)
  if (nydus?.bootstrap === undefined)
    throw new ConvertError(
      'NO_IMAGE',
      `cannot use ${formatReference(repository.reference)} as chunk dictionary: it is no Nydus image`,
    )
  const { bootstrap } = await fetchBootstrapLayer(repository, nydus.bootstrap, signal)
  const path = join(workDirectory, 'chunk-dictionary.boot')
  await writeWhole(path, bootstrap)
  return { repository, image: openBootstrap(bootstrap), chunks: await openDictionary(path, options) }
}

/** Brings the dictionary's blobs that the image refers to into the target's repository: mounted from the dictionary's where the registry can, else copied. */
export async function bringBlobs(
  dictionary: DictionaryImage,
  blobs: readonly BlobInfo[],
  target: Repository,
  retry: PushRetry,
  signal: AbortSignal,
): Promise<BlobLayer[]> {
  const { repository } = dictionary
  const brought: BlobLayer[] = []
  for (const { id } of blobs) {
    const digest = sha256Digest(id)
    const size = await repository.blobSize(digest, { signal })
    await copyBlob({ digest, size, from: repository, to: target }, retry, signal)
    brought.push({ digest, size })
  }
  return brought
}

/** Copies a blob between repositories without storing it; what is there already, or can be mounted, is not sent. */
export async function copyBlob(
  blob: { readonly digest: Digest; readonly size: number; readonly from: Repository; readonly to: Repository },
  retry: PushRetry,
  signal: AbortSignal,
): Promise<void> {
  const { digest, size, from, to } = blob
  const mountFrom =
    from.reference.host === to.reference.host && from.reference.repository !== to.reference.repository
      ? [from.reference.repository]
      : []
  const source = { digest, size, open: () => from.blobStream(digest, { size, signal }) }
  await retry.run(() => to.uploadBlob(source, { signal, mountFrom }), signal)
}
