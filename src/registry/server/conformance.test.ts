/** The embedded registry against the cases of the distribution specification's conformance suite, over plain HTTP. */
import assert from 'node:assert/strict'
import { readdir, stat, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { digestOf } from '../digest.ts'
import { MEDIA_TYPES } from '../manifest.ts'
import { pattern, pushImage, seed, testClient, testRegistry } from '../testing.ts'
import { startRegistry } from './registry-server.ts'

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

/** The path goes out as it is: `fetch` would tidy `..` away. */
function ask(
  base: string,
  line: string,
  headers: Readonly<Record<string, string>> = {},
  body: Uint8Array = new Uint8Array(0),
): Promise<Answer> {
  const [method = '', path = ''] = line.split(' ')
  const url = new URL(base)
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host: url.hostname,
        port: url.port,
        method,
        path,
        headers: {
          ...headers,
          ...(body.length > 0 || method === 'PUT' || method === 'POST'
            ? { 'content-length': String(body.length) }
            : {}),
        },
      },
      (response) => {
        const parts: Buffer[] = []
        response.on('data', (part: Buffer) => parts.push(part))
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) }),
        )
        response.on('error', reject)
      },
    )
    sent.on('error', reject)
    sent.end(body)
  })
}

const codeOf = (answer: Answer): string => {
  const parsed = JSON.parse(answer.body.toString()) as { errors: { code: string; message: string }[] }
  assert.ok(parsed.errors[0]?.message)
  return parsed.errors[0]?.code ?? ''
}
const blob = pattern(10_000)
const digest = digestOf(blob)
const absent = digestOf(Buffer.from('absent'))

describe('refusals', () => {
  const cases: readonly (readonly [string, number, string])[] = [
    [`GET /v2/test/image/blobs/${absent}`, 404, 'BLOB_UNKNOWN'],
    [`DELETE /v2/test/image/blobs/${absent}`, 404, 'BLOB_UNKNOWN'],
    ['GET /v2/test/image/blobs/sha256:abc', 400, 'DIGEST_INVALID'],
    ['GET /v2/test/image/blobs/md5:d41d8cd98f00b204e9800998ecf8427e', 400, 'DIGEST_INVALID'],
    [`GET /v2/Test/image/blobs/${digest}`, 400, 'NAME_INVALID'],
    [`GET /v2/../../etc/blobs/${digest}`, 404, 'UNSUPPORTED'],
    [`GET /v2/a/%2e%2e/b/blobs/${digest}`, 404, 'BLOB_UNKNOWN'],
    [`GET /v2/_blobs/x/blobs/${digest}`, 400, 'NAME_INVALID'],
    [`GET /v2/a//b/blobs/${digest}`, 400, 'NAME_INVALID'],
    [`GET /v2/${'a/'.repeat(200)}b/blobs/${digest}`, 400, 'NAME_INVALID'],
    [`POST /v2/test/image/blobs/${digest}`, 405, 'UNSUPPORTED'],
    ['GET /v2/test/image/manifests/absent', 404, 'MANIFEST_UNKNOWN'],
    [`GET /v2/test/image/manifests/${absent}`, 404, 'MANIFEST_UNKNOWN'],
    ['GET /v2/test/image/manifests/..%2f..%2fx', 400, 'TAG_INVALID'],
    ['GET /v2/test/image/manifests/.hidden', 400, 'TAG_INVALID'],
    ['DELETE /v2/test/image/manifests/absent', 404, 'MANIFEST_UNKNOWN'],
    ['PUT /v2/test/image/manifests/v1', 400, 'MANIFEST_INVALID'],
    ['GET /v2/no/such/tags/list', 404, 'NAME_UNKNOWN'],
    ['GET /v2/test/image/tags/list?n=x', 400, 'UNSUPPORTED'],
    ['GET /v2/test/image/referrers/sha256:1', 400, 'DIGEST_INVALID'],
    ['PATCH /v2/test/image/blobs/uploads/unknown', 404, 'BLOB_UPLOAD_UNKNOWN'],
    ['PUT /v2/test/image/blobs/uploads/unknown?digest=x', 404, 'BLOB_UPLOAD_UNKNOWN'],
    ['POST /v2/test/image/blobs/uploads/?digest=nonsense', 400, 'DIGEST_INVALID'],
    ['POST /v2/TEST/blobs/uploads/', 400, 'NAME_INVALID'],
    ['GET /v1/search', 404, 'UNSUPPORTED'],
    ['GET /', 404, 'UNSUPPORTED'],
  ]
  for (const [line, status, code] of cases) {
    test(`${line.slice(0, 100)}: ${status} ${code}`, async () => {
      await using registry = await testRegistry()
      await seed(registry.server, blob)
      const answer = await ask(
        registry.server.url,
        line,
        line.startsWith('PUT') ? { 'content-type': MEDIA_TYPES.ociManifest } : {},
      )
      assert.equal(answer.status, status)
      assert.equal(codeOf(answer), code)
    })
  }
})

test('blobs: HEAD, GET, ranges', async () => {
  await using registry = await testRegistry()
  await seed(registry.server, blob)
  const at = `/v2/test/image/blobs/${digest}`
  const head = await ask(registry.server.url, `HEAD ${at}`)
  assert.deepEqual(
    [head.status, head.headers['content-length'], head.headers['docker-content-digest'], head.body.length],
    [200, '10000', digest, 0],
  )
  const ranges: readonly (readonly [string, number, string | undefined, Uint8Array | undefined])[] = [
    ['bytes=0-0', 206, 'bytes 0-0/10000', blob.subarray(0, 1)],
    ['bytes=100-', 206, 'bytes 100-9999/10000', blob.subarray(100)],
    ['bytes=-100', 206, 'bytes 9900-9999/10000', blob.subarray(9900)],
    ['bytes=-20000', 206, 'bytes 0-9999/10000', blob],
    ['bytes=9999-20000', 206, 'bytes 9999-9999/10000', blob.subarray(9999)],
    ['bytes=10000-', 416, 'bytes */10000', undefined],
    ['bytes=-0', 416, 'bytes */10000', undefined],
    ['bytes=5-1', 200, undefined, blob],
    ['bytes=0-1,5-6', 200, undefined, blob],
    ['lines=1-2', 200, undefined, blob],
    ['bytes=-', 200, undefined, blob],
  ]
  for (const [range, status, contentRange, body] of ranges) {
    const answer = await ask(registry.server.url, `GET ${at}`, { range })
    assert.deepEqual([range, answer.status, answer.headers['content-range']], [range, status, contentRange])
    if (body !== undefined) assert.deepEqual(answer.body, Buffer.from(body))
  }
  assert.equal((await ask(registry.server.url, `DELETE ${at}`)).status, 202)
  assert.equal((await ask(registry.server.url, `GET ${at}`)).status, 404)
  assert.deepEqual(
    await readdir(join(registry.root, 'blobs', 'sha256', digest.slice(7, 9))),
    [],
    'the last repository takes the bytes along',
  )
})

test('uploads: in one POST, in POST and PUT, in pieces with resume, cancelled, mounted', async () => {
  await using registry = await testRegistry()
  const { url } = registry.server
  const start = async (): Promise<string> => {
    const answer = await ask(url, 'POST /v2/a/b/blobs/uploads/')
    assert.equal(answer.status, 202)
    return answer.headers.location as string
  }
  const single = await ask(url, `POST /v2/one/post/blobs/uploads/?digest=${digest}`, {}, blob)
  assert.deepEqual(
    [single.status, single.headers.location, single.headers['docker-content-digest']],
    [201, `/v2/one/post/blobs/${digest}`, digest],
  )
  const wrong = await ask(url, `PUT ${await start()}?digest=${absent}`, {}, blob)
  assert.deepEqual([wrong.status, codeOf(wrong)], [400, 'DIGEST_INVALID'])
  assert.equal((await ask(url, `PUT ${await start()}?digest=${digest}`, {}, blob)).status, 201)
  const at = await start()
  assert.deepEqual((await ask(url, `GET ${at}`)).headers.range, '0-0')
  const first = await ask(url, `PATCH ${at}`, { 'content-range': '0-3999' }, blob.subarray(0, 4000))
  assert.deepEqual([first.status, first.headers.range], [202, '0-3999'])
  const gap = await ask(url, `PATCH ${at}`, { 'content-range': '5000-5999' }, blob.subarray(5000, 6000))
  assert.deepEqual([gap.status, gap.headers.range], [416, '0-3999'])
  const long = await ask(url, `PATCH ${at}`, { 'content-range': '4000-4999' }, blob.subarray(4000, 6000))
  assert.equal(long.status, 416)
  const where = await ask(url, `GET ${at}`)
  assert.equal(where.status, 204)
  const stands = Number(/^0-(\d+)$/.exec(where.headers.range as string)?.[1]) + 1
  assert.equal(
    (await ask(url, `PUT ${at}?digest=${digest}`, { 'content-range': `${stands}-9999` }, blob.subarray(stands))).status,
    201,
  )
  assert.deepEqual((await ask(url, `GET /v2/a/b/blobs/${digest}`)).body, blob)
  const dropped = await start()
  assert.equal((await ask(url, `DELETE ${dropped}`)).status, 204)
  assert.equal((await ask(url, `GET ${dropped}`)).status, 404)
  assert.equal((await ask(url, `POST /v2/c/d/blobs/uploads/?mount=${digest}&from=a/b`)).status, 201)
  assert.equal((await ask(url, `POST /v2/c/d/blobs/uploads/?mount=${absent}&from=a/b`)).status, 202)
  assert.equal((await ask(url, `POST /v2/c/e/blobs/uploads/?mount=${digest}&from=../b`)).status, 400)
  assert.equal(
    (await stat(join(registry.root, 'repositories/c/d/_blobs/sha256', digest.slice(7)))).nlink,
    4,
    'the bytes are there once',
  )
})

test('sha512 digests', async () => {
  await using registry = await testRegistry()
  const long = digestOf(blob, 'sha512')
  assert.equal((await ask(registry.server.url, `POST /v2/a/blobs/uploads/?digest=${long}`, {}, blob)).status, 201)
  await using one = testClient(registry.server.host, {}, { name: 'a' })
  assert.deepEqual(Buffer.from(await one.repository.blob(long, 20_000)), blob)
})

test('manifests: by tag and digest, deletion of tag and of digest, mismatched types, size limit', async () => {
  await using registry = await testRegistry()
  const { url } = registry.server
  await using one = testClient(registry.server.host)
  const image = await pushImage(one.repository, 'v1')
  await pushImage(one.repository, 'v2')
  const put = (bytes: Uint8Array, type: string, ref = 'v3'): Promise<Answer> =>
    ask(url, `PUT /v2/test/image/manifests/${ref}`, { 'content-type': type }, bytes)
  assert.equal(codeOf(await put(image.bytes, MEDIA_TYPES.dockerManifest)), 'MANIFEST_INVALID')
  assert.equal(codeOf(await put(image.bytes, MEDIA_TYPES.ociManifest, absent)), 'DIGEST_INVALID')
  assert.equal((await put(Buffer.alloc((4 << 20) + 1, ' '), MEDIA_TYPES.ociManifest)).status, 413)
  const index = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      manifests: [{ mediaType: MEDIA_TYPES.ociManifest, digest: image.digest, size: image.bytes.length }],
    }),
  )
  assert.equal((await put(index, MEDIA_TYPES.ociIndex)).status, 201)
  assert.equal(
    codeOf(await put(Buffer.from(index.toString().replace(image.digest, absent)), MEDIA_TYPES.ociIndex)),
    'MANIFEST_BLOB_UNKNOWN',
  )
  const head = await ask(url, 'HEAD /v2/test/image/manifests/v1')
  assert.deepEqual(
    [head.headers['content-type'], head.headers['docker-content-digest'], head.headers['content-length']],
    [MEDIA_TYPES.ociManifest, image.digest, String(image.bytes.length)],
  )
  assert.equal((await ask(url, 'DELETE /v2/test/image/manifests/v2')).status, 202)
  assert.equal((await ask(url, `GET /v2/test/image/manifests/${image.digest}`)).status, 200)
  assert.equal((await ask(url, `DELETE /v2/test/image/manifests/${image.digest}`)).status, 202)
  assert.equal((await ask(url, 'GET /v2/test/image/manifests/v1')).status, 404)
})

test('tags in pages; the catalog; referrers with the subject header', async () => {
  await using registry = await testRegistry()
  const { url } = registry.server
  await using one = testClient(registry.server.host)
  for (const tag of ['b', 'a', 'C', 'd']) await pushImage(one.repository, tag)
  const page = async (query: string): Promise<unknown[]> => {
    const answer = await ask(url, `GET /v2/test/image/tags/list${query}`)
    return [(JSON.parse(answer.body.toString()) as { tags: string[] }).tags, answer.headers.link]
  }
  assert.deepEqual(await page(''), [['C', 'a', 'b', 'd'], undefined])
  assert.deepEqual(await page('?n=2'), [['C', 'a'], '</v2/test/image/tags/list?n=2&last=a>; rel="next"'])
  assert.deepEqual(await page('?n=2&last=a'), [['b', 'd'], undefined])
  assert.deepEqual(await page('?n=0'), [[], undefined])
  assert.equal((await ask(url, 'GET /v2/_catalog')).body.toString(), '{"repositories":["test/image"]}')
  const image = await pushImage(one.repository, 'a')
  const refers = Buffer.from(
    image.bytes
      .toString()
      .replace(/}$/, `,"artifactType":"x/y","subject":{"mediaType":"m","digest":"${absent}","size":1}}`),
  )
  const put = await ask(url, 'PUT /v2/test/image/manifests/refers', { 'content-type': MEDIA_TYPES.ociManifest }, refers)
  assert.deepEqual([put.status, put.headers['oci-subject']], [201, absent])
  const listed = await ask(url, `GET /v2/test/image/referrers/${absent}?artifactType=x/y`)
  assert.deepEqual(
    [listed.headers['content-type'], listed.headers['oci-filters-applied']],
    [MEDIA_TYPES.ociIndex, 'artifactType'],
  )
  assert.deepEqual(JSON.parse(listed.body.toString()).manifests, [
    { mediaType: MEDIA_TYPES.ociManifest, digest: digestOf(refers), size: refers.length, artifactType: 'x/y' },
  ])
  assert.deepEqual(
    JSON.parse((await ask(url, `GET /v2/test/image/referrers/${absent}?artifactType=z`)).body.toString()).manifests,
    [],
  )
  await one.repository.deleteManifest(digestOf(refers))
  assert.deepEqual(await one.repository.referrers(absent), [])
})

test('what was stored is there after a restart, half-finished uploads are not; a second server on the port says so', async () => {
  await using registry = await testRegistry()
  await seed(registry.server, blob)
  await writeFile(join(registry.root, 'uploads', 'left-over'), 'x')
  const { port } = registry.server
  await assert.rejects(startRegistry({ root: `${registry.root}/other`, host: '127.0.0.1', port }), {
    code: 'BAD_CONFIG',
    message: /choose another port/,
  })
  await registry.server.close()
  const again = await startRegistry({ root: registry.root, host: '127.0.0.1', port })
  try {
    assert.deepEqual((await ask(again.url, `GET /v2/test/image/blobs/${digest}`)).body, blob)
    assert.deepEqual(await readdir(join(registry.root, 'uploads')), [])
  } finally {
    await again.close()
  }
})

test('counters and bandwidth', async () => {
  await using registry = await testRegistry({ bytesPerSecond: 10_000_000, latencyMs: 1 })
  await seed(registry.server, blob)
  await ask(registry.server.url, `GET /v2/test/image/blobs/${digest}`, { range: 'bytes=0-99' })
  assert.deepEqual(registry.server.counters().blob, { requests: 1, bytesIn: 0, bytesOut: 100 })
})

test('no request line gets an answer above 499 or a file outside of the store', async () => {
  await using registry = await testRegistry()
  await seed(registry.server, blob)
  const before = await readdir(registry.root)
  const part = fc.constantFrom(
    'v2',
    'test',
    'image',
    '..',
    '%2e%2e',
    '%2f',
    '.',
    '',
    'blobs',
    'uploads',
    'manifests',
    'tags',
    'list',
    'referrers',
    digest,
    'sha256:..%2f..',
    '_tags',
    '%00',
    '%zz',
    'token',
    '\\',
    'a?digest=..',
    '?mount=../x&from=..',
  )
  const line = fc.record({
    method: fc.constantFrom('GET', 'HEAD', 'PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS'),
    parts: fc.array(part, { maxLength: 8 }),
  })
  await fc.assert(
    fc.asyncProperty(line, async ({ method, parts }) => {
      const answer = await ask(registry.server.url, `${method} /v2/${parts.join('/')}`)
      assert.ok(answer.status < 500, `${method} ${parts.join('/')}: ${answer.status}`)
    }),
    { numRuns: 500 },
  )
  assert.deepEqual(
    (await readdir(registry.root)).filter((entry) => !before.includes(entry)),
    [],
  )
  const store = await readdir(join(registry.root, 'repositories'), { recursive: true })
  assert.ok(store.every((path) => !path.includes('..')))
})
