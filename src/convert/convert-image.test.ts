import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { gunzipSync, gzipSync } from 'node:zlib'
import { openBootstrap } from '../rafs/index.ts'
import {
  anonymous,
  digestOf,
  fromPassword,
  type ImageIndex,
  type ImageManifest,
  MEDIA_TYPES,
  parseReference,
  RegistryClient,
} from '../registry/index.ts'
import { ANNOTATIONS, NYDUS_ARTIFACT_TYPE } from './annotations.ts'
import { fetchBootstrapLayer } from './bootstrap-layer.ts'
import { nydusConfig, nydusManifest } from './nydus-image.ts'
import { EMPTY_LAYER, mergedIndex, nydusTwin, plainTwin } from './merged-index.ts'
import { openSources } from './source-image.ts'
import {
  convert,
  filesIn,
  fixtureBlob,
  fixtureManifest,
  push,
  pushFixture,
  pushImage,
  sampleLayers,
  skipWithoutFixtures,
  tarOf,
  type TestWorld,
  testWorld,
} from './testing.ts'
import { checkWorld } from './check/testing.ts'

const SIGNAL = new AbortController().signal

async function manifestOf(world: TestWorld, name: string): Promise<{ manifest: ImageManifest; text: string }> {
  const { bytes, parsed } = await world.repository(name).manifest(name.split(':')[1] ?? '')
  assert.equal(parsed.kind, 'image')
  return { manifest: parsed.kind === 'image' ? parsed.image : assert.fail(), text: Buffer.from(bytes).toString() }
}

test('converts an image with all that layers hold, and the check finds nothing wrong', async () => {
  for (const compression of ['gzip', 'zstd', 'none'] as const) {
    await using world = await testWorld()
    await pushImage(world.repository('app:plain'), await sampleLayers(), { compression })
    const { layers, targetSize } = await convert(world, 'app')
    assert.deepEqual(
      layers.map(({ outcome }) => outcome),
      ['uploaded', 'uploaded', 'uploaded'],
    )
    assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus'), [])
    const { manifest } = await manifestOf(world, 'app:nydus')
    assert.equal(
      targetSize,
      manifest.layers.reduce((sum, { size }) => sum + size, manifest.config.size),
    )
    assert.deepEqual(await filesIn(join(world.folder, 'work')), [])
  }
})

test('attributes that no image can hold are left out with a warning, and the check does not miss them', async () => {
  await using world = await testWorld()
  const xattrs = { 'com.apple.provenance': 'mac', 'user.kept': 'kept' }
  await pushImage(world.repository('app:plain'), [await tarOf([{ path: 'a', type: 'file', content: 'a', xattrs }])])
  const { layers } = await convert(world, 'app')
  assert.deepEqual(
    layers.flatMap(({ warnings }) => warnings),
    [
      'the image cannot hold all of its source; left out: the extended attribute "com.apple.provenance" of "a" (images hold user.*, trusted.*, security.* and POSIX ACLs)',
    ],
  )
  assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus'), [])
})

test('lz4_block, no compression and other chunk sizes', async () => {
  for (const [compression, chunkSize] of [
    ['lz4_block', 0x1000],
    ['none', 0x100_0000],
  ] as const) {
    await using world = await testWorld()
    await pushImage(world.repository('app:plain'), await sampleLayers())
    await convert(world, 'app', { compression, chunkSize })
    assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus'), [])
  }
})

test('config and manifests are those of the original, byte for byte', { skip: skipWithoutFixtures }, async () => {
  const variants = [
    ['source', 'v6', {}],
    ['source', 'v6-referrer', { withReferrer: true }],
    ['source-docker', 'v6-docker', {}],
    ['source-docker', 'v6-docker-oci', { toOci: true }],
    ['plain-source', 'plain-v6', {}],
  ] as const
  for (const [source, wanted, options] of variants) {
    const [plain, nydus] = [await fixtureManifest(source), await fixtureManifest(wanted)]
    const sourceConfig = await fixtureBlob(plain.manifest.config.digest)
    const bootstrapLayer = nydus.manifest.layers.at(-1) ?? assert.fail()
    const bootstrap = { ...bootstrapLayer, diffId: digestOf(gunzipSync(await fixtureBlob(bootstrapLayer.digest))) }
    const blobs = nydus.manifest.layers.slice(0, -1)
    const config = nydusConfig(sourceConfig, blobs, bootstrap)
    assert.equal(Buffer.from(config).toString(), (await fixtureBlob(nydus.manifest.config.digest)).toString())
    const descriptor = { mediaType: plain.mediaType, digest: plain.digest, size: plain.bytes.length }
    const reference = nydus.manifest.annotations?.[ANNOTATIONS.sourceReference] ?? ''
    const parts = {
      source: { manifest: plain.manifest, descriptor, reference },
      blobs,
      bootstrap,
      builderVersion: 'v2.4.4-8-g34e6071e',
      toOci: false,
      withReferrer: false,
      isMerged: false,
      ...options,
    }
    const document = nydusManifest(parts, { digest: digestOf(config), size: config.length })
    assert.equal(Buffer.from(document.bytes).toString(), nydus.bytes.toString(), wanted)
    assert.equal(document.mediaType, nydus.mediaType)
  }
})

test('a merged index is that of the original, byte for byte', { skip: skipWithoutFixtures }, async () => {
  await using world = await testWorld()
  await pushFixture(world.repository('fixtures/app:source'), 'source')
  const { images } = await openSources(
    world.repository('fixtures/app:source'),
    [{ os: 'linux', architecture: 'amd64' }],
    SIGNAL,
  )
  const [source = assert.fail()] = images
  const wanted = await fixtureManifest('v6-merged')
  const [plain = assert.fail(), nydus = assert.fail()] = (JSON.parse(wanted.bytes.toString()) as ImageIndex).manifests
  const twin = plainTwin(source)
  assert.equal(Buffer.from(twin.manifest.bytes).toString(), (await fixtureBlob(plain.digest)).toString())
  const document = mergedIndex(
    [twin.descriptor],
    [nydusTwin(source, { bytes: await fixtureBlob(nydus.digest), mediaType: MEDIA_TYPES.ociManifest })],
  )
  assert.equal(Buffer.from(document.bytes).toString(), wanted.bytes.toString())
  assert.deepEqual(gunzipSync(EMPTY_LAYER), Buffer.alloc(1024))
})

test('a simple image gets the blobs and the bootstrap of the original', { skip: skipWithoutFixtures }, async () => {
  await using world = await testWorld()
  await pushFixture(world.repository('fixtures/plain:plain'), 'plain-source')
  await convert(world, 'fixtures/plain')
  const [{ manifest }, wanted] = [
    await manifestOf(world, 'fixtures/plain:nydus'),
    (await fixtureManifest('plain-v6')).manifest,
  ]
  assert.deepEqual(manifest.layers.slice(0, -1), wanted.layers.slice(0, -1))
  // The config has the digests of all blobs and of the bootstrap's tar.
  const config = await world.repository('fixtures/plain:nydus').blob(manifest.config.digest, 1_000_000)
  assert.equal(Buffer.from(config).toString(), (await fixtureBlob(wanted.config.digest)).toString())
})

test('what the original knows nothing of stays in the config', async () => {
  await using world = await testWorld()
  await pushImage(world.repository('app:plain'), await sampleLayers())
  await convert(world, 'app')
  const { manifest } = await manifestOf(world, 'app:nydus')
  const config = Buffer.from(await world.repository('app:nydus').blob(manifest.config.digest, 1_000_000)).toString()
  assert.ok(config.includes('"Healthcheck":{"Test":["NONE"]}'))
  assert.ok(config.includes('--x=\\u003c\\u0026\\u003e'), 'escaped as Go does')
})

test('an unchanged image is converted again without an upload of any blob', async () => {
  await using world = await testWorld()
  await pushImage(world.repository('app:plain'), await sampleLayers())
  const first = await convert(world, 'app')
  world.server.resetCounters()
  const second = await convert(world, 'app')
  assert.equal(second.digest, first.digest)
  assert.deepEqual(
    second.layers.map(({ outcome }) => outcome),
    ['existed', 'existed', 'existed'],
  )
  assert.equal(world.server.counters().upload.requests, 0)
})

test('one layer twice in an image is converted once', async () => {
  await using world = await testWorld()
  const [layer = assert.fail()] = await sampleLayers()
  await pushImage(world.repository('app:plain'), [layer, layer])
  const { layers } = await convert(world, 'app')
  assert.equal(layers.length, 1)
  assert.equal((await manifestOf(world, 'app:nydus')).manifest.layers.length, 3)
  assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus'), [])
})

test('an index: one platform, some, all; attestations are no images', async () => {
  await using world = await testWorld()
  const platforms = ['amd64', 'arm64'] as const
  const manifests: object[] = []
  for (const architecture of platforms) {
    const layer = await tarOf([{ path: 'arch', type: 'file', content: architecture }])
    manifests.push({
      ...(await pushImage(untagged(world), [layer], { architecture })),
      platform: { architecture, os: 'linux' },
    })
  }
  manifests.push({ ...manifests[0], platform: { architecture: 'unknown', os: 'unknown' } })
  await world
    .repository('app:plain')
    .pushManifest(
      'plain',
      Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests })),
      MEDIA_TYPES.ociIndex,
    )
  await convert(world, 'app', { platforms: [{ os: 'linux', architecture: 'arm64' }] })
  const { manifest } = await manifestOf(world, 'app:nydus')
  assert.ok(manifest.layers.at(-1)?.annotations?.[ANNOTATIONS.bootstrap], 'an index of one is that one')
  await assert.rejects(convert(world, 'app', { platforms: [{ os: 'linux', architecture: 's390x' }] }), {
    code: 'NO_IMAGE',
    message: /s390x; it offers: linux\/amd64, linux\/arm64/,
  })
  await convert(world, 'app', { platforms: 'all' })
  const all = await world.repository('app:nydus').manifest('nydus')
  const index = all.parsed.kind === 'index' ? all.parsed.index : assert.fail()
  assert.deepEqual(
    index.manifests.map(({ platform }) => platform?.architecture),
    platforms,
  )
  for (const architecture of platforms)
    assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus', { platform: { os: 'linux', architecture } }), [])
})

test('--merge-platform: a plain and a Nydus image under one tag; the plain one can be pulled', async () => {
  await using world = await testWorld()
  await pushImage(world.repository('app:plain'), await sampleLayers())
  await convert(world, 'app', { target: world.repository('other:nydus'), isMerged: true })
  const top = await world.repository('other:nydus').manifest('nydus')
  const index = top.parsed.kind === 'index' ? top.parsed.index : assert.fail()
  assert.deepEqual(
    index.manifests.map(({ artifactType }) => artifactType),
    [undefined, NYDUS_ARTIFACT_TYPE],
  )
  const twin = await world.repository('other:nydus').manifest(index.manifests[0]?.digest ?? '')
  const plain = twin.parsed.kind === 'image' ? twin.parsed.image : assert.fail()
  for (const { digest } of plain.layers) assert.equal(await world.repository('other:nydus').blobExists(digest), true)
  assert.deepEqual(await checkWorld(world, 'app:plain', 'other:nydus', { wantsBoth: true }), [])
})

test('chunks of a dictionary image are not stored again, and its blobs come along', async () => {
  await using world = await testWorld()
  const layers = await sampleLayers()
  await pushImage(world.repository('base:plain'), layers)
  const base = await convert(world, 'base')
  const extra = await tarOf([
    { path: 'new', type: 'file', content: 'only here' },
    { path: 'same', type: 'file', content: Buffer.alloc(2_500_000, 'a large file that needs three chunks; ') },
  ])
  await pushImage(world.repository('app:plain'), [extra])
  const app = await convert(world, 'app', { dictionary: world.repository('base:nydus') })
  assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus'), [])
  const { manifest } = await manifestOf(world, 'app:nydus')
  const bigBlob =
    base.layers.find(({ size }) => size === Math.max(...base.layers.map((layer) => layer.size))) ?? assert.fail()
  assert.equal(manifest.layers.length, 3)
  assert.equal(manifest.layers[1]?.digest, bigBlob.digest)
  assert.ok((app.layers[0]?.size ?? 0) < 10_000)
  await assert.rejects(convert(world, 'app', { dictionary: world.repository('base:plain') }), { code: 'NO_IMAGE' })
})

test('prefetch patterns become the prefetch table', async () => {
  await using world = await testWorld()
  await pushImage(world.repository('app:plain'), await sampleLayers())
  await convert(world, 'app', { prefetchPaths: ['/etc', '/bin/app'] })
  const { manifest } = await manifestOf(world, 'app:nydus')
  const { bootstrap } = await fetchBootstrapLayer(
    world.repository('app:nydus'),
    manifest.layers.at(-1) ?? assert.fail(),
    SIGNAL,
  )
  assert.equal(openBootstrap(bootstrap).prefetch().length, 2)
})

test('a layer that is not what the config says is refused, and nothing is left', async () => {
  await using world = await testWorld()
  const layers = await sampleLayers()
  await pushImage(world.repository('app:plain'), layers, {
    diffIds: layers.map((_, index) => `sha256:${String(index).repeat(64)}`),
  })
  await assert.rejects(convert(world, 'app'), {
    code: 'BAD_IMAGE',
    message: /unpacks to sha256:.* config says sha256:/,
  })
  await pushImage(world.repository('app:plain'), layers, { diffIds: [] })
  await assert.rejects(convert(world, 'app'), { code: 'BAD_IMAGE', message: /3 != 0/ })
  assert.deepEqual(await filesIn(join(world.folder, 'work')), [])
  await assert.rejects(world.repository('app:nydus').manifest('nydus'), { code: 'NOT_FOUND' })
})

test('bytes after the end of a tar belong to the layer and are compared too', async () => {
  await using world = await testWorld()
  const [tar = assert.fail()] = await sampleLayers()
  const repository = world.repository('app:plain')
  const stored = await push(repository, gzipSync(Buffer.concat([tar, Buffer.alloc(300_000)])))
  const config = await push(
    repository,
    Buffer.from(
      JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [digestOf(tar)] } }),
    ),
  )
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, ...config },
    layers: [{ mediaType: MEDIA_TYPES.ociLayerGzip, ...stored }],
  }
  await repository.pushManifest('plain', Buffer.from(JSON.stringify(manifest)), MEDIA_TYPES.ociManifest)
  await assert.rejects(convert(world, 'app'), { code: 'BAD_IMAGE' })
})

test('a Nydus image, an artifact and a broken layer are refused by name', async () => {
  await using world = await testWorld()
  await pushImage(world.repository('app:plain'), await sampleLayers())
  await convert(world, 'app')
  await assert.rejects(convert(world, 'app', { source: world.repository('app:nydus') }), { code: 'ALREADY_NYDUS' })
  await pushImage(world.repository('app:plain'), [Buffer.from('this is no tar at all'.repeat(100))])
  await assert.rejects(convert(world, 'app'), { code: 'BAD_SOURCE' })
})

test('a target that is named by a digest is refused', async () => {
  await using world = await testWorld()
  await pushImage(world.repository('app:plain'), await sampleLayers())
  await assert.rejects(convert(world, 'app', { target: untagged(world) }), {
    code: 'BAD_OPTION',
    message: /name a tag only/,
  })
})

test('registries that throttle, fail and cut bodies: the image is right all the same', async () => {
  await using world = await testWorld()
  await pushImage(world.repository('app:plain'), await sampleLayers())
  world.server.fail(
    {
      match: { route: 'blob', method: 'GET' },
      fault: { kind: 'status', status: 429, headers: { 'Retry-After': '0' } },
    },
    { match: { route: 'blob', method: 'GET' }, times: 2, fault: { kind: 'cut', afterBytes: 50 } },
    { match: { route: 'upload', method: 'POST' }, fault: { kind: 'status', status: 503 } },
    { match: { route: 'upload', method: 'PUT' }, fault: { kind: 'reset' } },
    { match: { route: 'manifest', method: 'PUT' }, fault: { kind: 'status', status: 500 } },
  )
  await convert(world, 'app')
  assert.equal(world.server.clearFaults(), 0)
  assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus'), [])
})

test('wrong bytes from the source, and an upload that is refused: a coded error, and nothing is left', async () => {
  await using world = await testWorld()
  const layers = await sampleLayers()
  await pushImage(world.repository('app:plain'), layers, { compression: 'none' })
  // A byte of padding at the end: the tar reads well, only its digest is wrong.
  const [layer = assert.fail()] = layers
  world.server.fail({
    match: { route: 'blob', method: 'GET', url: new RegExp(digestOf(layer)) },
    fault: { kind: 'wrong-bytes', at: layer.length - 1 },
  })
  await assert.rejects(
    convert(world, 'app'),
    (error: { code?: string }) => error.code === 'BAD_IMAGE' || error.code === 'DIGEST_MISMATCH',
  )
  world.server.clearFaults()
  world.server.fail({ match: { route: 'upload', method: 'POST' }, times: 100, fault: { kind: 'status', status: 403 } })
  await assert.rejects(convert(world, 'app'), { code: 'FORBIDDEN' })
  world.server.clearFaults()
  assert.deepEqual(await filesIn(join(world.folder, 'work')), [])
  await assert.rejects(world.repository('app:nydus').manifest('nydus'), { code: 'NOT_FOUND' })
  await convert(world, 'app')
  assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus'), [])
})

test('aborted half-way: the reason is thrown, the work directory is as before', async () => {
  await using world = await testWorld()
  await pushImage(world.repository('app:plain'), await sampleLayers())
  world.server.fail({ match: { route: 'upload', method: 'PUT' }, times: 10, fault: { kind: 'stall', afterBytes: 0 } })
  const stop = new AbortController()
  const reason = new Error('enough')
  const running = convert(world, 'app', {}, stop.signal)
  while ((await filesIn(join(world.folder, 'work'))).length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
  stop.abort(reason)
  await assert.rejects(running, reason)
  world.server.clearFaults()
  assert.deepEqual(await filesIn(join(world.folder, 'work')), [])
})

test('logins: basic, bearer tokens that expire meanwhile, and none', async () => {
  const users = { me: 'hush' }
  for (const auth of [{ kind: 'basic', users } as const, { kind: 'bearer', users, tokenLifeMs: 60_000 } as const]) {
    await using world = await testWorld({ auth })
    const client = new RegistryClient({
      credentials: fromPassword('me', 'hush'),
      retry: { attempts: 2, baseDelayMs: 1 },
    })
    const nobody = new RegistryClient({ credentials: anonymous(), retry: { attempts: 2, baseDelayMs: 1 } })
    try {
      const at = (name: string, of = client): ReturnType<TestWorld['repository']> =>
        of.repository(parseReference(`${world.server.host}/app:${name}`))
      await pushImage(at('plain'), await sampleLayers())
      world.server.expireTokens()
      await convert(world, 'app', { source: at('plain'), target: at('nydus') })
      assert.deepEqual(await checkWorld(world, at('plain'), at('nydus')), [])
      await assert.rejects(convert(world, 'app', { source: at('plain', nobody), target: at('nydus') }), {
        code: 'UNAUTHORIZED',
      })
    } finally {
      await Promise.all([client.close(), nobody.close()])
    }
  }
})

/** A reference by digest, so that pushed images get no tag. */
function untagged(world: TestWorld): ReturnType<TestWorld['repository']> {
  return world.repository(`app@sha256:${'0'.repeat(64)}`)
}
