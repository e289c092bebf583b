import assert from 'node:assert/strict'
import { gunzipSync } from 'node:zlib'
import { test } from 'node:test'
import { digestOf, type ImageManifest, MEDIA_TYPES, parseImageConfig } from '../registry/index.ts'
import { checkWorld } from './check/testing.ts'
import { convert, pushImage, sampleLayers, tarOf, type TestWorld, testWorld } from './testing.ts'

/** Manifests under a tag: of an index, all of them. */
async function manifestsOf(world: TestWorld, tag: string): Promise<ImageManifest[]> {
  const repository = world.repository(`app:${tag}`)
  const { parsed } = await repository.manifest(tag)
  if (parsed.kind === 'image') return [parsed.image]
  const manifests: ImageManifest[] = []
  for (const { digest } of parsed.index.manifests) {
    const { parsed: inside } = await repository.manifest(digest)
    manifests.push(inside.kind === 'image' ? inside.image : assert.fail())
  }
  return manifests
}

test("for Docker's storage driver the bootstrap is the only layer, and the other tag holds the data", async () => {
  await using world = await testWorld()
  await pushImage(world.repository('app:plain'), await sampleLayers())
  await convert(world, 'app', { graphDriverTag: 'docker' })
  const [[full], [alone, ...more]] = [await manifestsOf(world, 'nydus'), await manifestsOf(world, 'docker')]
  assert.ok(full !== undefined && alone !== undefined && more.length === 0)
  assert.equal(full.layers.length, 4)
  assert.deepEqual(alone.layers, full.layers.slice(-1))
  const repository = world.repository('app:docker')
  const stored = await repository.blob(alone.layers[0]?.digest ?? assert.fail(), 1 << 20)
  const [of, ofFull] = [
    parseImageConfig(await repository.blob(alone.config.digest, 1 << 20)),
    parseImageConfig(await repository.blob(full.config.digest, 1 << 20)),
  ]
  assert.deepEqual(of.rootfs.diff_ids, [digestOf(gunzipSync(stored))])
  assert.equal(of.history?.length, 1)
  assert.deepEqual({ ...of, rootfs: 0, history: 0 }, { ...ofFull, rootfs: 0, history: 0 })
  assert.equal(alone.config.mediaType, full.config.mediaType)
  assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus'), [])
})

test("for Docker's storage driver an image of several platforms is an index, beside a merged one too, and refers to nothing", async () => {
  await using world = await testWorld()
  const platforms = ['amd64', 'arm64'].map((architecture) => ({ os: 'linux', architecture }))
  const manifests: object[] = []
  for (const platform of platforms) {
    const layer = await tarOf([{ path: 'arch', type: 'file', content: platform.architecture }])
    const pushed = await pushImage(world.repository('app:plain'), [layer], { architecture: platform.architecture })
    manifests.push({ ...pushed, platform })
  }
  const index = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests })
  await world.repository('app:plain').pushManifest('plain', Buffer.from(index), MEDIA_TYPES.ociIndex)
  for (const isMerged of [false, true]) {
    await convert(world, 'app', { platforms, isMerged, withReferrer: true, graphDriverTag: `docker-${isMerged}` })
    const made = await manifestsOf(world, `docker-${isMerged}`)
    assert.equal(made.length, 2)
    for (const { layers, subject, config } of made) {
      assert.equal(layers.length, 1)
      assert.equal(subject, undefined)
      assert.doesNotMatch(config.mediaType, /nydus/)
    }
  }
})
