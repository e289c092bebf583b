/** For tests: an image that runs, in two layers, as a plain and as a Nydus image. */
import { convert, type TestWorld } from '../../src/convert/testing.ts'
import { hostPlatform } from '../../src/registry/index.ts'
import { baseEntries, dataEntries, dataFiles, layerOf, pushRunnable, sumsOf } from '../node/image-content.ts'

/** Pushes it as `app:plain`, and converted as `app:nydus`. Gives what `sha256sum /data/*` prints in a container of it. */
export async function pushTestImage(world: TestWorld): Promise<string> {
  const files = dataFiles()
  const layers = [await layerOf(baseEntries()), await layerOf(dataEntries(files))]
  await pushRunnable(world.repository('app:plain'), layers)
  await convert(world, 'app', { prefetchPaths: [], platforms: [hostPlatform()] })
  return sumsOf(files)
}
