import { createReadStream, readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  type Descriptor,
  fromDockerConfig,
  MEDIA_TYPES,
  parseDigest,
  parseReference,
  referenceTarget,
  RegistryClient,
} from '../../src/registry/index.ts'

interface LayoutManifest {
  readonly config: Descriptor
  readonly layers: readonly Descriptor[]
}

/** Gives the only image of a layout to a registry, with Docker's logins; returns its digest. */
export async function pushLayout(folder: string, image: string): Promise<string> {
  const reference = parseReference(image)
  const client = new RegistryClient({ credentials: fromDockerConfig(), plainHttp: 'localhost' })
  try {
    const repository = client.repository(reference)
    const blobPath = (digest: string): string => join(folder, 'blobs/sha256', digest.replace('sha256:', ''))
    const index = JSON.parse(readFileSync(join(folder, 'index.json'), 'utf8')) as { manifests: readonly [Descriptor] }
    const bytes = readFileSync(blobPath(index.manifests[0].digest))
    const { config, layers } = JSON.parse(bytes.toString()) as LayoutManifest
    for (const { digest, size } of [config, ...layers])
      await repository.uploadBlob({ digest: parseDigest(digest), size, open: () => createReadStream(blobPath(digest)) })
    const pushed = await repository.pushManifest(referenceTarget(reference), bytes, MEDIA_TYPES.ociManifest)
    return pushed.digest
  } finally {
    await client.close()
  }
}
