/** For tests: a Nydus image as Docker's own storage takes it: its one layer is the bootstrap, its data lies beside it in the registry. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { convert, push, type TestWorld } from '../../src/convert/testing.ts'
import { digestOf, type Digest, hostPlatform, type ImageManifest, MEDIA_TYPES } from '../../src/registry/index.ts'
import {
  baseEntries,
  dataEntries,
  type DataFile,
  dataFiles,
  layerOf,
  pushRunnable,
  sumsOf,
} from '../node/image-content.ts'

export interface DockerImage {
  /** The tar that dockerd hands to its storage. */
  readonly bootstrapLayer: Buffer
  readonly diffId: Digest
  readonly files: readonly DataFile[]
  /** What `sha256sum /data/*` prints in a container. */
  readonly sums: string
}

/** Pushes it as `app:docker`. */
export async function dockerImage(world: TestWorld): Promise<DockerImage> {
  const files = dataFiles()
  const layers = [await layerOf(baseEntries()), await layerOf(dataEntries(files))]
  await pushRunnable(world.repository('app:plain'), layers)
  await convert(world, 'app', { prefetchPaths: [], platforms: [hostPlatform()] })
  const repository = world.repository('app:docker')
  const { parsed } = await repository.manifest('nydus')
  const { image } = parsed as { image: ImageManifest }
  const bootstrap = image.layers.at(-1)
  if (bootstrap === undefined) throw new Error('the image has no layer')
  const bootstrapLayer = gunzipSync(await repository.blob(bootstrap.digest, 1 << 24))
  const config = JSON.parse(Buffer.from(await repository.blob(image.config.digest, 1 << 20)).toString()) as object
  const diffId = digestOf(bootstrapLayer)
  const made = Buffer.from(
    JSON.stringify({ ...config, rootfs: { type: 'layers', diff_ids: [diffId] }, history: [{ created_by: 'nydus' }] }),
  )
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.dockerManifest,
    config: { mediaType: MEDIA_TYPES.dockerConfig, ...(await push(repository, made)) },
    layers: [{ mediaType: MEDIA_TYPES.dockerLayerGzip, digest: bootstrap.digest, size: bootstrap.size }],
  }
  await repository.pushManifest('docker', Buffer.from(JSON.stringify(manifest)), MEDIA_TYPES.dockerManifest)
  return { bootstrapLayer, diffId, files, sums: sumsOf(files) }
}

/** Writes what dockerd notes when it has pulled a layer. */
export function noteSource(
  home: string,
  { layer, diffId, repository }: { readonly layer: string; readonly diffId: Digest; readonly repository: string },
): void {
  const root = join(dirname(home), 'image', basename(home))
  const [chain, notes] = [
    join(root, 'layerdb/sha256', diffId.slice(7)),
    join(root, 'distribution/v2metadata-by-diffid/sha256'),
  ]
  mkdirSync(chain, { recursive: true })
  mkdirSync(notes, { recursive: true })
  writeFileSync(join(chain, 'cache-id'), layer)
  writeFileSync(join(chain, 'diff'), diffId)
  writeFileSync(
    join(notes, diffId.slice(7)),
    JSON.stringify([{ Digest: diffId, SourceRepository: repository, HMAC: '' }]),
  )
}
