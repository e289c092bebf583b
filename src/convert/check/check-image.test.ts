import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { localfsBackend } from '../../backend/index.ts'
import { type Descriptor, digestHex, digestOf, type ImageManifest, MEDIA_TYPES } from '../../registry/index.ts'
import { ANNOTATIONS } from '../annotations.ts'
import { BOOTSTRAP_PATH, fetchBootstrapLayer, packBootstrapLayer } from '../bootstrap-layer.ts'
import {
  convert,
  FIXTURES,
  filesIn,
  push,
  pushFixture,
  pushImage,
  sampleLayers,
  skipWithoutFixtures,
  tarOf,
  type TestWorld,
  testWorld,
} from '../testing.ts'
import { checkWorld } from './testing.ts'

async function converted(world: TestWorld): Promise<ImageManifest> {
  await pushImage(world.repository('app:plain'), await sampleLayers())
  await convert(world, 'app')
  return await manifestOf(world)
}

async function manifestOf(world: TestWorld): Promise<ImageManifest> {
  const { parsed } = await world.repository('app:nydus').manifest('nydus')
  return parsed.kind === 'image' ? parsed.image : assert.fail()
}

async function pushNydus(world: TestWorld, manifest: ImageManifest, changes: Partial<ImageManifest>): Promise<void> {
  await world
    .repository('app:nydus')
    .pushManifest('nydus', Buffer.from(JSON.stringify({ ...manifest, ...changes })), MEDIA_TYPES.ociManifest)
}

/** The stored file of a blob in the registry's folder. */
async function storedPath(world: TestWorld, { digest }: { readonly digest: Descriptor['digest'] }): Promise<string> {
  const root = join(world.folder, 'registry')
  const path = (await filesIn(root)).find((name) => name.includes(digestHex(digest)) && name.includes('blobs'))
  return join(root, path ?? assert.fail(`no file of ${digest}`))
}

const largest = (layers: readonly Descriptor[]): Descriptor =>
  layers.slice(0, -1).toSorted((a, b) => b.size - a.size)[0] ?? assert.fail()

test("the original's images pass, also those its own check refuses", { skip: skipWithoutFixtures }, async () => {
  await using world = await testWorld()
  const names = [
    'source',
    'source-docker',
    'v6',
    'v6-docker',
    'v6-docker-oci',
    'v5',
    'v5-lz4',
    'v6-merged',
    'v6-dict',
    'v6-referrer',
  ]
  for (const name of names) await pushFixture(world.repository(`app:${name}`), name)
  for (const name of names.slice(2)) {
    const source = name.startsWith('v6-docker') ? 'source-docker' : 'source'
    assert.deepEqual(await checkWorld(world, `app:${source}`, `app:${name}`), [], name)
  }
  assert.deepEqual(await checkWorld(world, 'app:v6', 'app:v6-dict'), [], 'two Nydus images')
})

test("manifests and configs are written as the original's check writes them", {
  skip: skipWithoutFixtures,
}, async () => {
  await using world = await testWorld()
  for (const name of ['plain-source', 'plain-v6']) await pushFixture(world.repository(`app:${name}`), name)
  assert.deepEqual(await checkWorld(world, 'app:plain-source', 'app:plain-v6'), [])
  for (const name of ['source/oci_manifest', 'source/oci_config', 'target/nydus_manifest', 'target/nydus_config']) {
    const wanted = await readFile(join(FIXTURES, 'plain-v6/check', `${name.replace('/', '-')}.json`), 'utf8')
    assert.equal(await readFile(join(world.folder, 'output', `${name}.json`), 'utf8'), wanted, name)
  }
  const summary = JSON.parse(await readFile(join(world.folder, 'output/target/nydus_output.json'), 'utf8')) as Record<
    string,
    unknown
  >
  const wanted = JSON.parse(
    await readFile(join(FIXTURES, 'plain-v6/check/target-nydus_output.json'), 'utf8'),
  ) as Record<string, unknown>
  assert.deepEqual(Object.keys(summary), Object.keys(wanted))
  assert.deepEqual(
    [summary['blobs'], summary['fs_version'], summary['compressor']],
    [wanted['blobs'], wanted['fs_version'], wanted['compressor']],
  )
  assert.ok(existsSync(join(world.folder, 'output/target/nydus_bootstrap', BOOTSTRAP_PATH)))
})

test('a flipped byte in a blob is found, and the chunk named', async () => {
  await using world = await testWorld()
  const blob = largest((await converted(world)).layers)
  const path = await storedPath(world, blob)
  const bytes = await readFile(path)
  bytes.writeUInt8(bytes.readUInt8(20) ^ 1, 20)
  await writeFile(path, bytes)
  const findings = await checkWorld(world, 'app:plain', 'app:nydus')
  assert.equal(findings.length, 1, findings.join('\n'))
  assert.match(findings[0] ?? '', new RegExp(`^filesystem ${digestHex(blob.digest)}: chunk \\d+`))
  assert.deepEqual(await checkWorld(world, undefined, 'app:nydus'), [], 'without a source no data is read')
})

test('other contents, a missing xattr, another owner, missing and surplus files: all are named', async () => {
  await using world = await testWorld()
  await converted(world)
  const file = {
    path: 'etc/passwd',
    type: 'file',
    content: 'root:x:0:0\n',
    xattrs: { 'user.note': 'kept', 'trusted.secret': 'too' },
  } as const
  const [lower = assert.fail(), ...rest] = await sampleLayers()
  const base = [lower, ...rest]
  const etc = { path: 'etc/', type: 'directory', uid: 7, gid: 8 } as const
  const changed: ReadonlyArray<readonly [string, Parameters<typeof tarOf>[0], RegExp]> = [
    ['contents', [etc, { ...file, content: 'toor:x:0:0\n' }], /^filesystem .*\/etc\/passwd/],
    ['xattr', [etc, { ...file, xattrs: { 'user.note': 'kept' } }], /^filesystem .*\/etc\/passwd.*trusted\.secret/],
    ['owner', [etc, { ...file, uid: 5 }], /^filesystem .*\/etc\/passwd/],
    ['mode', [etc, { ...file, mode: 0o777 }], /^filesystem .*\/etc\/passwd/],
    ['surplus', [{ path: 'surplus', type: 'file' }], /^filesystem .*\/surplus/],
    ['missing', [{ path: '.wh.empty', type: 'file' }], /^filesystem .*\/empty/],
    [
      'link',
      [
        { path: 'bin/', type: 'directory', mtimeSeconds: 1_600_000_000 },
        { path: 'bin/sh', type: 'symlink', mode: 0o777, link: 'elsewhere' },
      ],
      /^filesystem .*\/bin\/sh/,
    ],
  ]
  for (const [name, entries, wanted] of changed) {
    await pushImage(world.repository('app:plain'), [...base, await tarOf(entries)])
    const findings = await checkWorld(world, 'app:plain', 'app:nydus')
    assert.equal(findings.length, 1, `${name}: ${findings.join('\n')}`)
    assert.match(findings[0] ?? '', wanted, name)
  }
})

test('several mistakes are all reported', async () => {
  await using world = await testWorld()
  const manifest = await converted(world)
  const [first = assert.fail(), ...others] = manifest.layers
  const { [ANNOTATIONS.blob]: _, ...annotations } = first.annotations ?? {}
  await pushNydus(world, manifest, {
    layers: [{ ...first, annotations, mediaType: MEDIA_TYPES.ociLayerGzip }, ...others],
  })
  const repository = world.repository('app:plain')
  const config = Buffer.from(
    JSON.stringify({
      os: 'linux',
      architecture: 'amd64',
      config: { User: 'other' },
      rootfs: { type: 'layers', diff_ids: [] },
    }),
  )
  const plain = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, ...(await push(repository, config)) },
    layers: [],
  }
  await repository.pushManifest('plain', Buffer.from(JSON.stringify(plain)), MEDIA_TYPES.ociManifest)
  const findings = (await checkWorld(world, 'app:plain', 'app:nydus')).join('\n')
  for (const wanted of [
    /manifest sha256:.*: its media type is/,
    /lacks the annotation/,
    /run config differs from the source's in User/,
    /filesystem "\/bin/,
  ])
    assert.match(findings, wanted)
})

test("a blob that the manifest does not name, one that is gone, and a bootstrap layer that is not the config's", async () => {
  await using world = await testWorld()
  const manifest = await converted(world)
  const blob = largest(manifest.layers)
  await pushNydus(world, manifest, { layers: manifest.layers.filter(({ digest }) => digest !== blob.digest) })
  const findings = (await checkWorld(world, undefined, 'app:nydus')).join('\n')
  assert.match(findings, /manifest .*invalid diff ids in image config: 4 \(diff ids\) != 3 \(layers\)/)
  assert.match(findings, new RegExp(`bootstrap ${digestHex(blob.digest)}: the bootstrap refers to this blob`))

  const boot = manifest.layers.at(-1) ?? assert.fail()
  const { bootstrap } = await fetchBootstrapLayer(world.repository('app:nydus'), boot, new AbortController().signal)
  const other = await packBootstrapLayer(bootstrap, [])
  await push(world.repository('app:nydus'), other.bytes)
  await pushNydus(world, manifest, {
    layers: [...manifest.layers.slice(0, -1), { ...boot, digest: other.digest, size: other.size }],
  })
  assert.match(
    (await checkWorld(world, undefined, 'app:nydus')).join('\n'),
    /bootstrap sha256:.*: invalid bootstrap layer diff id: sha256:.* != sha256:/,
  )
})

test('damaged and hostile bootstrap layers are findings, not crashes', async () => {
  await using world = await testWorld()
  const manifest = await converted(world)
  const boot = manifest.layers.at(-1) ?? assert.fail()
  const hostile: ReadonlyArray<readonly [Uint8Array, RegExp]> = [
    [Buffer.from('no tar'), /cannot use bootstrap layer/],
    [await tarOf([{ path: '../escape', type: 'file', content: 'x' }]), /is no plain file below the layer's root/],
    [await tarOf([{ path: 'image/image.boot', type: 'symlink', link: '/etc/passwd' }]), /is no plain file/],
    [await tarOf([{ path: 'image/other', type: 'file' }]), /it holds no image\/image\.boot/],
    [await tarOf([{ path: 'image/image.boot', type: 'file', content: Buffer.alloc(8192, 7) }]), /no RAFS bootstrap/],
    [Buffer.concat([Buffer.from([0x1f, 0x8b, 8]), Buffer.alloc(20, 9)]), /gzip says/],
  ]
  for (const [bytes, wanted] of hostile) {
    await push(world.repository('app:nydus'), bytes)
    await pushNydus(world, manifest, {
      layers: [...manifest.layers.slice(0, -1), { ...boot, digest: digestOf(bytes), size: bytes.length }],
    })
    assert.match((await checkWorld(world, 'app:plain', 'app:nydus')).join('\n'), wanted)
    assert.equal(existsSync(join(world.folder, 'escape')), false)
  }
})

test('blobs in a folder instead of the registry', async () => {
  await using world = await testWorld()
  const blob = largest((await converted(world)).layers)
  const folder = join(world.folder, 'blobs')
  await mkdir(folder)
  const targetBlobs = localfsBackend({ dir: folder })
  assert.match(
    (await checkWorld(world, 'app:plain', 'app:nydus', { targetBlobs })).join('\n'),
    new RegExp(`filesystem ${digestHex(blob.digest)}: `),
  )
  for (const { digest } of (await manifestOf(world)).layers)
    await writeFile(join(folder, digestHex(digest)), await world.repository('app:nydus').blob(digest, 10_000_000))
  assert.deepEqual(await checkWorld(world, 'app:plain', 'app:nydus', { targetBlobs }), [])
  await targetBlobs.close()
})

test('the wanted index is missing; the target is a plain image', async () => {
  await using world = await testWorld()
  await converted(world)
  assert.match(
    (await checkWorld(world, undefined, 'app:nydus', { wantsBoth: true })).join('\n'),
    /the plain one is missing/,
  )
  assert.deepEqual(await checkWorld(world, 'app:plain', 'app:plain'), [])
  await pushImage(world.repository('app:other'), [await tarOf([])])
  assert.match((await checkWorld(world, 'app:plain', 'app:other')).join('\n'), /the target is no Nydus image/)
})

test('the folder that the process stands in is not emptied', async () => {
  await using world = await testWorld()
  await converted(world)
  for (const outputFolder of ['.', '/', '..'])
    await assert.rejects(checkWorld(world, undefined, 'app:nydus', { outputFolder }), { code: 'BAD_OPTION' })
})
