/** For tests: a Nydus image as Docker's own storage takes it: its one layer is the bootstrap, its data lies beside it in the registry. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { convert, type TestWorld } from '../../src/convert/testing.ts'
import { digestOf, type Digest, hostPlatform } from '../../src/registry/index.ts'
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
  await convert(world, 'app', { prefetchPaths: [], platforms: [hostPlatform()], graphDriverTag: 'docker' })
  const repository = world.repository('app:docker')
  const { parsed } = await repository.manifest('docker')
  if (parsed.kind !== 'image') throw new Error('it is an index')
  const [bootstrap, ...others] = parsed.image.layers
  if (bootstrap === undefined || others.length > 0) throw new Error('the bootstrap must be the only layer')
  const bootstrapLayer = gunzipSync(await repository.blob(bootstrap.digest, 1 << 24))
  return { bootstrapLayer, diffId: digestOf(bootstrapLayer), files, sums: sumsOf(files) }
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
