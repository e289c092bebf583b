import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { digestOf } from './digest.ts'
import { MEDIA_TYPES } from './manifest.ts'
import type { Fault } from './server/faults.ts'
import { blobOf, collect, pattern, pushImage, testClient, testRegistry } from './testing.ts'

const content = pattern(1_000_003)

test('what is there already is not sent again', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const progress: number[] = []
  assert.equal(
    (await one.repository.uploadBlob(blobOf(content), { onProgress: (sent) => progress.push(sent) })).outcome,
    'uploaded',
  )
  assert.equal(progress.at(-1), content.length)
  assert.equal((await one.repository.uploadBlob(blobOf(content))).outcome, 'existed')
  assert.equal(registry.server.counters().upload.bytesIn, content.length)
  assert.equal((await one.repository.uploadBlob(blobOf(Buffer.alloc(0)))).outcome, 'uploaded')
})

describe('uploads survive', () => {
  const faults: readonly (readonly [string, string, Fault])[] = [
    ['a reset at the start', 'POST', { kind: 'reset' }],
    ['500 at the end', 'PUT', { kind: 'status', status: 500 }],
    ['429 at the end', 'PUT', { kind: 'status', status: 429, headers: { 'retry-after': '1' } }],
    ['a lost session', 'PUT', { kind: 'status', status: 404 }],
    ['a reset at the end', 'PUT', { kind: 'reset' }],
    ['a redirect that keeps the method', 'PUT', { kind: 'redirect', to: '{path}' }],
  ]
  for (const [name, method, fault] of faults) {
    for (const chunkBytes of [undefined, 300_000]) {
      test(`${name}, ${chunkBytes === undefined ? 'in one piece' : 'in pieces'}`, async () => {
        await using registry = await testRegistry()
        await using one = testClient(registry.server.host)
        registry.server.fail({ match: { method }, fault })
        const result = await one.repository.uploadBlob(blobOf(content), chunkBytes === undefined ? {} : { chunkBytes })
        assert.equal(result.outcome, 'uploaded')
        assert.equal(registry.server.clearFaults(), 0)
        assert.deepEqual(await collect(one.repository.blobStream(result.digest)), content)
        assert.deepEqual(await readdir(join(registry.root, 'uploads')), [], 'no session is left')
      })
    }
  }
  for (const fault of [{ kind: 'reset' }, { kind: 'status', status: 503 }] as const) {
    test(`${fault.kind} of a piece, in a stream of unknown length`, async () => {
      await using registry = await testRegistry()
      await using one = testClient(registry.server.host)
      registry.server.fail({ match: { method: 'PATCH' }, fault })
      const result = await one.repository.uploadStream(blobOf(content, 9999).open(), { chunkBytes: 250_000 })
      assert.deepEqual(result, { digest: digestOf(content), size: content.length, outcome: 'uploaded' })
      assert.deepEqual(await collect(one.repository.blobStream(result.digest)), content)
    })
  }
})

test('a source that fails, ends early or runs over fails the upload at once and leaves no session', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const broken = new Error('disk gone')
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield content.subarray(0, 1000)
    throw broken
  }
  const sources: readonly (readonly [() => AsyncIterable<Uint8Array>, object])[] = [
    [failing, broken],
    [
      async function* () {
        yield content.subarray(0, 1000)
      },
      { code: 'DIGEST_MISMATCH' },
    ],
    [
      async function* () {
        yield content
        yield content
      },
      { code: 'DIGEST_MISMATCH' },
    ],
  ]
  for (const [open, wanted] of sources) {
    for (const more of [{}, { chunkBytes: 500 }]) {
      await assert.rejects(
        one.repository.uploadBlob({ digest: digestOf(content), size: content.length, open }, more),
        wanted,
      )
    }
  }
  await assert.rejects(one.repository.uploadStream(failing()), broken)
  await assert.rejects(one.repository.uploadBlob({ ...blobOf(content), digest: digestOf(Buffer.from('other')) }), {
    code: 'REFUSED',
  })
  assert.deepEqual(await readdir(join(registry.root, 'uploads')), [])
})

test('manifests: tags, digests, media types, missing blobs', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const image = await pushImage(one.repository, 'v1')
  const manifest = await one.repository.manifest('v1')
  assert.deepEqual(
    [manifest.descriptor.digest, manifest.descriptor.mediaType, manifest.descriptor.size],
    [image.digest, MEDIA_TYPES.ociManifest, image.bytes.length],
  )
  assert.deepEqual(Buffer.from(manifest.bytes), image.bytes)
  assert.deepEqual(await one.repository.resolve('v1'), manifest.descriptor)
  assert.deepEqual(await one.repository.resolve(image.digest), manifest.descriptor)
  assert.deepEqual(await one.repository.tags(), ['v1'])
  registry.server.fail({ match: { method: 'HEAD' }, fault: { kind: 'status', status: 405 } })
  assert.deepEqual(await one.repository.resolve('v1'), manifest.descriptor)
  for (const ref of ['v1', image.digest]) {
    registry.server.fail({ match: { route: 'manifest' }, fault: { kind: 'wrong-bytes', at: 20 } })
    await assert.rejects(one.repository.manifest(ref), { code: 'DIGEST_MISMATCH' })
  }
  await assert.rejects(one.repository.manifest('absent'), { code: 'NOT_FOUND' })
  await assert.rejects(one.repository.manifest('../../../_catalog'), { code: 'BAD_REFERENCE' })
  await assert.rejects(one.repository.pushManifest(digestOf(Buffer.from('x')), image.bytes, MEDIA_TYPES.ociManifest), {
    code: 'DIGEST_MISMATCH',
  })
  const dangling = image.bytes.toString().replaceAll(digestOf(pattern(1000, 7)), digestOf(Buffer.from('nowhere')))
  await assert.rejects(
    one.repository.pushManifest('v2', Buffer.from(dangling), MEDIA_TYPES.ociManifest),
    /MANIFEST_BLOB_UNKNOWN/,
  )
})

test('tags come in pages, and pages that go round or away are refused', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const names = Array.from({ length: 25 }, (_, index) => `t${String(index).padStart(2, '0')}`)
  for (const name of names) await pushImage(one.repository, name)
  assert.deepEqual(await one.repository.tags(), names)
  const page = (link: string, tags: readonly string[]): Fault => ({
    kind: 'status',
    status: 200,
    headers: { link },
    body: JSON.stringify({ tags }),
  })
  registry.server.fail({ fault: page('</v2/test/image/tags/list?last=t20>; rel="next"', ['t00']) })
  assert.deepEqual(await one.repository.tags(), ['t00', 't21', 't22', 't23', 't24'])
  registry.server.fail({ times: 9, fault: page('<?last=a>; rel="next"', ['t00']) })
  await assert.rejects(one.repository.tags(), { code: 'BAD_RESPONSE' })
  registry.server.clearFaults()
  registry.server.fail({ fault: page('<http://elsewhere.example/>; rel="next"', []) })
  await assert.rejects(one.repository.tags(), { code: 'BAD_RESPONSE' })
})

test('referrers by the API, with a filter', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const image = await pushImage(one.repository, 'v1')
  const subject = { mediaType: MEDIA_TYPES.ociManifest, digest: image.digest, size: image.bytes.length }
  const sbom = await pushImage(one.repository, '', {
    subject,
    artifactType: 'application/sbom',
    annotations: { a: 'b' },
  })
  const other = await pushImage(one.repository, '', { subject })
  assert.deepEqual(
    (await one.repository.referrers(image.digest)).map(({ digest }) => digest).sort(),
    [sbom.digest, other.digest].sort(),
  )
  const [only, ...rest] = await one.repository.referrers(image.digest, { artifactType: 'application/sbom' })
  assert.deepEqual([only?.digest, only?.annotations, rest], [sbom.digest, { a: 'b' }, []])
  assert.deepEqual(await one.repository.referrers(sbom.digest), [])
  assert.deepEqual(await one.repository.tags(), ['v1'], 'no tag schema is used')
})
