import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { lstat, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { type Descriptor, digestOf, MEDIA_TYPES } from '../../registry/index.ts'
import { CRI_IMAGE_REF, CRI_MANIFEST_DIGEST, NYDUS_ALTERNATIVE } from '../labels.ts'
import {
  inFrames,
  NEVER,
  pushBlob,
  pushIndex,
  pushManifest,
  pushNydus,
  pushPlain,
  requests,
  tarOf,
  testWorld,
  type World,
} from './testing.ts'

const PLATFORM = { os: 'linux', architecture: 'amd64' }
const ARTIFACT_TYPE = 'application/vnd.nydus.image.manifest.v1+json'
const BOOT = Buffer.alloc(3_000_000, 'bootstrap; ')
const META = `${'ab'.repeat(32)}.blob.meta`

const bootLayer = async (): Promise<Buffer> =>
  gzipSync(
    await tarOf([
      { path: 'image', type: 'directory' },
      { path: 'image/image.boot', content: BOOT },
      { path: `image/${META}`, content: Buffer.from('meta') },
    ]),
  )

/** An index under `v1` with a plain image and a Nydus one beside it. */
async function indexed(
  world: World,
  nydus?: (descriptor: Descriptor, plain: Descriptor, other: Descriptor) => readonly object[],
): Promise<Descriptor> {
  const plain = await pushPlain(world.repository)
  const other = await pushNydus(world.repository, await bootLayer())
  const beside = nydus?.(other, plain, await pushPlain(world.repository, 'other')) ?? [
    { ...other, platform: PLATFORM, artifactType: ARTIFACT_TYPE },
  ]
  await pushIndex(world.repository, 'v1', [{ ...plain, platform: PLATFORM }, ...beside])
  world.server.resetCounters()
  return plain
}

describe('in an index', () => {
  const cases: readonly (readonly [
    string,
    ((nydus: Descriptor, plain: Descriptor, other: Descriptor) => readonly object[]) | undefined,
    boolean,
  ])[] = [
    ['by its artifact type', undefined, true],
    [
      'by the feature of earlier versions',
      (nydus) => [{ ...nydus, platform: { ...PLATFORM, 'os.features': ['nydus.remoteimage.v1'] } }],
      true,
    ],
    [
      'of another platform',
      (nydus) => [{ ...nydus, artifactType: ARTIFACT_TYPE, platform: { os: 'linux', architecture: 's390x' } }],
      false,
    ],
    ['without a platform', (nydus) => [{ ...nydus, artifactType: ARTIFACT_TYPE }], true],
    ['that says nothing of Nydus', (nydus) => [{ ...nydus, platform: PLATFORM }], false],
    [
      'after one that is called so and is not',
      (nydus, _, other) => [
        { ...other, platform: PLATFORM, artifactType: ARTIFACT_TYPE },
        { ...nydus, platform: PLATFORM, artifactType: ARTIFACT_TYPE },
      ],
      true,
    ],
    [
      'that is called Nydus and is the plain image',
      (_, plain) => [{ ...plain, platform: PLATFORM, artifactType: ARTIFACT_TYPE }],
      false,
    ],
    [
      'that is an index',
      (nydus) => [{ ...nydus, mediaType: MEDIA_TYPES.ociIndex, platform: PLATFORM, artifactType: ARTIFACT_TYPE }],
      false,
    ],
  ]
  for (const [name, beside, isFound] of cases)
    test(`one ${name} is ${isFound ? '' : 'not '}found`, async () => {
      await using world = await testWorld()
      const plain = await indexed(world, beside)
      const found = await world.detector({ referrer: false }).find(world.labels(plain.digest), NEVER)
      assert.equal(found?.kind, isFound ? 'index' : undefined)
      if (isFound) assert.equal(found?.digest, digestOf(await bootLayer()))
    })

  test('an image that is under no index, or under a digest, has none', async () => {
    await using world = await testWorld()
    const plain = await pushPlain(world.repository)
    const labels = new Map([
      ...world.labels(plain.digest),
      [CRI_IMAGE_REF, `${world.server.host}/app@${plain.digest}`] as const,
    ])
    world.server.resetCounters()
    assert.equal(await world.detector({ referrer: false }).find(labels, NEVER), undefined)
    assert.equal(world.server.counters().manifest.requests, 0)
    assert.equal(await world.detector({ referrer: false }).find(world.labels(plain.digest, 'gone'), NEVER), undefined)
  })
})

describe('by referrers', () => {
  const referring = async (world: World): Promise<Descriptor> => {
    const plain = await pushPlain(world.repository)
    const { mediaType, digest, size } = plain
    const subject = { mediaType, digest, size }
    const signature = await pushBlob(world.repository, Buffer.from('signature'))
    for (const n of [1, 2, 3])
      await pushManifest(world.repository, [signature], { subject, artifactType: `x/signature${n}` })
    const artifactType = ARTIFACT_TYPE
    await pushNydus(world.repository, await bootLayer(), { subject, artifactType })
    world.server.resetCounters()
    return plain
  }

  test('the Nydus image is found among signatures, with one request for the list and one for it', async () => {
    await using world = await testWorld()
    const plain = await referring(world)
    const found = await world.detector({ index: false }).find(world.labels(plain.digest), NEVER)
    assert.equal(found?.kind, 'referrer')
    assert.equal(world.server.counters().manifest.requests, 1)
  })

  test('an index is asked before', async () => {
    await using world = await testWorld()
    const plain = await indexed(world)
    await pushNydus(world.repository, await bootLayer(), { subject: plain })
    assert.equal((await world.detector().find(world.labels(plain.digest), NEVER))?.kind, 'index')
  })

  test('one that refers to something else is not taken from a list that lies', async () => {
    await using world = await testWorld()
    const [plain, other] = [await pushPlain(world.repository), await pushPlain(world.repository, 'other')]
    const nydus = await pushNydus(world.repository, await bootLayer(), { subject: other })
    const body = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests: [nydus] })
    world.server.fail({ match: { route: 'referrers' }, fault: { kind: 'status', status: 200, body } })
    assert.equal(await world.detector({ index: false }).find(world.labels(plain.digest), NEVER), undefined)
  })

  test('a list without end costs what is bounded', async () => {
    let pages = 0
    const entry = { mediaType: MEDIA_TYPES.ociManifest, digest: digestOf(Buffer.from('x')), size: 1 }
    const server = createServer((request, response) => {
      if (request.url?.includes('/manifests/') === true) {
        response.writeHead(404).end()
        return
      }
      pages += 1
      const link = `<${request.url?.split('?')[0]}?page=${pages}>; rel="next"`
      response.writeHead(200, { 'content-type': MEDIA_TYPES.ociIndex, link })
      response.end(JSON.stringify({ schemaVersion: 2, manifests: Array.from({ length: 4000 }, () => entry) }))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    await using world = await testWorld()
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
    const labels = new Map([
      [CRI_IMAGE_REF, `${host}/app:v1`],
      [CRI_MANIFEST_DIGEST, digestOf(Buffer.from('plain'))],
    ])
    assert.equal(await world.detector({ index: false }).find(labels, NEVER), undefined)
    server.close()
    assert.equal(pages, 3)
  })
})

test('answers are kept: found, none, and failures; twenty questions at once are one', async () => {
  await using world = await testWorld()
  const plain = await indexed(world)
  const detector = world.detector()
  const labels = world.labels(plain.digest)
  const all = await Promise.all(Array.from({ length: 20 }, () => detector.find(labels, NEVER)))
  assert.equal(new Set(all.map((found) => found?.digest)).size, 1)
  const asked = requests(world.server)
  await detector.find(labels, NEVER)
  const none = world.labels(digestOf(Buffer.from('another')))
  assert.equal(await detector.find(none, NEVER), undefined)
  const askedOfNone = requests(world.server)
  assert.equal(await detector.find(none, NEVER), undefined)
  assert.equal(requests(world.server), askedOfNone)
  assert.ok(asked <= 4, `${asked} requests`)
  assert.deepEqual(new Set(world.asked), new Set([`${world.server.host}/app:v1`]))
})

test('a registry that is gone is UNAVAILABLE, and the layers of an image ask it once', async () => {
  const world = await testWorld()
  const plain = await indexed(world)
  const detector = world.detector()
  const labels = world.labels(plain.digest)
  await world[Symbol.asyncDispose]()
  await assert.rejects(detector.find(labels, NEVER), { name: 'SnapshotterError', code: 'UNAVAILABLE' })
  const asked = world.asked.length
  await assert.rejects(detector.find(labels, NEVER), { code: 'UNAVAILABLE' })
  assert.equal(world.asked.length, asked)
})

test('who does not wait any longer is let go at once', async () => {
  await using world = await testWorld({ latencyMs: 20_000 })
  const labels = world.labels(digestOf(Buffer.from('x')))
  await assert.rejects(world.detector().find(labels, AbortSignal.timeout(50)), { code: 'DEADLINE_EXCEEDED' })
  await assert.rejects(world.detector().find(labels, AbortSignal.abort()), { code: 'CANCELLED' })
})

test('what a label says needs no registry; a label that is not ours is not believed', async () => {
  await using world = await testWorld()
  const plain = await indexed(world)
  const first = await world.detector().find(world.labels(plain.digest), NEVER)
  assert.ok(first)
  const asked = requests(world.server)
  const kept = new Map([...world.labels(plain.digest), ...first.labels])
  assert.deepEqual(await world.detector().find(kept, NEVER), first)
  assert.equal(requests(world.server), asked)
  for (const text of [
    '',
    'true',
    'index',
    'index,sha256:x,1',
    `index,${plain.digest},0`,
    `index,${plain.digest},1e3`,
    `index,${plain.digest},9999999999`,
    `other,${plain.digest},5`,
  ]) {
    const labels = new Map([...world.labels(plain.digest), [NYDUS_ALTERNATIVE, text] as const])
    assert.equal((await world.detector().find(labels, NEVER))?.digest, first.digest, text)
  }
})

test('labels that name no image ask nobody', async () => {
  await using world = await testWorld()
  const digest = digestOf(Buffer.from('x'))
  for (const [reference, manifest] of [
    ['', digest],
    ['../../etc', digest],
    [`${world.server.host}/app`, 'sha256:../../..'],
    [`${world.server.host}/app`, ''],
  ])
    assert.equal(
      await world.detector().find(
        new Map([
          [CRI_IMAGE_REF, reference ?? ''],
          [CRI_MANIFEST_DIGEST, manifest ?? ''],
        ]),
        NEVER,
      ),
      undefined,
    )
  assert.equal(await world.detector().find(new Map(), NEVER), undefined)
  assert.equal(requests(world.server), 0)
})

describe('the bootstrap is fetched', () => {
  const fetched = async (
    layer: Uint8Array,
    use: (parts: { world: World; directory: string; fetch: () => Promise<string> }) => Promise<void>,
  ): Promise<void> => {
    await using world = await testWorld()
    const { digest, size } = await pushBlob(world.repository, layer)
    const directory = await world.snapshot()
    const detector = world.detector()
    const found = { kind: 'index', reference: `${world.server.host}/app:v1`, digest, size, labels: new Map() } as const
    await use({ world, directory, fetch: () => detector.fetch(found, directory, NEVER) })
    // Whatever happened: nothing half-written stays.
    assert.deepEqual(
      (await readdir(directory)).filter((name) => name !== 'fs'),
      [],
    )
  }

  for (const [name, pack] of [
    ['gzip', gzipSync],
    ['zstd', zstdCompressSync],
    ['zstd:chunked', inFrames],
    ['plain', (bytes: Buffer) => bytes],
  ] as const)
    test(`from a ${name} layer, with the files of its blobs, once however many ask`, async () => {
      const tar = await tarOf([
        { path: './image/image.boot', content: BOOT },
        { path: `image/${META}`, content: Buffer.from('meta') },
      ])
      await fetched(pack(tar), async ({ world, directory, fetch }) => {
        const paths = await Promise.all([fetch(), fetch(), fetch()])
        assert.deepEqual(new Set(paths), new Set([join(directory, 'fs/image.boot')]))
        assert.ok((await readFile(join(directory, 'fs/image.boot'))).equals(BOOT))
        assert.equal(await readFile(join(directory, 'fs', META), 'utf8'), 'meta')
        const { blob } = world.server.counters()
        await fetch()
        assert.equal(world.server.counters().blob.requests, blob.requests)
      })
    })

  const hostile: readonly (readonly [string, () => Promise<Buffer>, RegExp])[] = [
    ['without a bootstrap', () => tarOf([{ path: 'image/other', content: BOOT }]), /holds no image\/image.boot/],
    ['with an empty one', () => tarOf([{ path: 'image/image.boot' }]), /has 0 bytes/],
    [
      'with two',
      () =>
        tarOf([
          { path: 'image/image.boot', content: BOOT },
          { path: 'image/image.boot', content: BOOT },
        ]),
      /twice/,
    ],
    [
      'with a link for one',
      () => tarOf([{ path: 'image/image.boot', type: 'symlink', link: Buffer.from('/etc/passwd') }]),
      /holds no/,
    ],
    [
      'with paths that lead out of it',
      () =>
        tarOf([
          { path: '../image/image.boot', content: BOOT },
          { path: '/image/image.boot', content: BOOT },
          { path: `image/../../${META}`, content: BOOT },
        ]),
      /holds no/,
    ],
    [
      'that ends early',
      async () => (await tarOf([{ path: 'image/image.boot', content: BOOT }])).subarray(0, 100_000),
      /bootstrap layer/,
    ],
    ['that is no tar', async () => Buffer.alloc(100_000, 'x'), /checksum/],
    [
      'that is half a gzip',
      async () => gzipSync(await tarOf([{ path: 'image/image.boot', content: BOOT }])).subarray(0, 3000),
      /gzip says/,
    ],
    ['with nothing in it', async () => gzipSync(Buffer.concat([await tarOf([]), Buffer.alloc(1024)])), /holds no/],
  ]
  for (const [name, layer, message] of hostile)
    test(`not from one ${name}`, async () =>
      fetched(await layer(), async ({ directory, fetch }) => {
        await assert.rejects(fetch(), (error: Error & { code: string }) => {
          assert.match(error.message, message)
          assert.equal(error.code, 'BAD_STATE')
          return true
        })
        assert.deepEqual(await readdir(join(directory, 'fs')), [])
      }))

  test('not when its bytes are others than the digest says', async () => {
    await fetched(await bootLayer(), async ({ world, directory, fetch }) => {
      // Of the gzip's header, which nobody but the digest looks at.
      const fault = { kind: 'wrong-bytes', at: 4 } as const
      world.server.fail({ match: { route: 'blob' }, times: 9, fault })
      await assert.rejects(fetch(), { code: 'BAD_STATE', message: /digest/ })
      assert.deepEqual(await readdir(join(directory, 'fs')), [])
    })
  })

  test('what an earlier process left half-done is removed; a link in the place of fs is refused', async () => {
    await fetched(await bootLayer(), async ({ directory, fetch }) => {
      await mkdir(join(directory, '.bootstrap-old'))
      await writeFile(join(directory, '.bootstrap-old/image.boot'), 'half')
      await fetch()
      assert.ok((await lstat(join(directory, 'fs/image.boot'))).isFile())
      await rm(join(directory, 'fs'), { recursive: true })
      await symlink('/tmp', join(directory, 'fs'))
      await assert.rejects(fetch(), /is no directory/)
    })
  })

  test('a link in the place of the bootstrap is replaced, not followed', async () => {
    await fetched(await bootLayer(), async ({ directory, fetch }) => {
      await writeFile(join(directory, 'fs/victim'), 'safe')
      await symlink(join(directory, 'fs/victim'), join(directory, 'fs/image.boot'))
      await fetch()
      assert.equal(await readFile(join(directory, 'fs/victim'), 'utf8'), 'safe')
      assert.ok((await readFile(join(directory, 'fs/image.boot'))).equals(BOOT))
    })
  })

  test('a disk that is full is told so, and nothing half-written stays', {
    skip: process.getuid?.() === 0 ? false : 'needs root',
  }, async () => {
    await fetched(
      gzipSync(await tarOf([{ path: 'image/image.boot', content: BOOT }])),
      async ({ world, directory, fetch }) => {
        execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', directory])
        try {
          await mkdir(join(directory, 'fs'))
          await assert.rejects(fetch(), { code: 'RESOURCE_EXHAUSTED', message: /make room/ })
          assert.deepEqual([await readdir(directory), await readdir(join(directory, 'fs'))], [['fs'], []])
          assert.deepEqual(world.lines, [])
        } finally {
          execFileSync('umount', [directory])
        }
      },
    )
  })
})
