import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { parseChallenges } from './challenge.ts'
import { parseContentRange } from './content-range.ts'
import { digestOf, parseDigest } from './digest.ts'
import { RegistryError } from './errors.ts'
import { MEDIA_TYPES, parseImageConfig, parseManifest } from './manifest.ts'
import { formatPlatform, parsePlatform, selectPlatform } from './platform.ts'
import { formatReference, isLoopback, parseReference } from './reference.ts'

const sha = digestOf(Buffer.from('x'))

describe('references', () => {
  const good: readonly (readonly [string, string])[] = [
    ['node', 'docker.io/library/node:latest'],
    ['node:24', 'docker.io/library/node:24'],
    ['docker.io/node', 'docker.io/library/node:latest'],
    ['index.docker.io/a/b', 'docker.io/a/b:latest'],
    ['me/app', 'docker.io/me/app:latest'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app:v1', 'localhost:5000/app:v1'],
    ['registry.example/a/b/c:1.2_x', 'registry.example/a/b/c:1.2_x'],
    ['[::1]:5000/app', '[::1]:5000/app:latest'],
    ['127.0.0.1:5000/a__b/c--d.e', '127.0.0.1:5000/a__b/c--d.e:latest'],
    [`node@${sha}`, `docker.io/library/node@${sha}`],
    [`localhost:5000/app:v1@${sha}`, `localhost:5000/app:v1@${sha}`],
    ['Host.Example:1/app', 'Host.Example:1/app:latest'],
  ]
  for (const [text, full] of good) {
    test(`${text} is ${full}`, () => {
      assert.equal(formatReference(parseReference(text)), full)
      assert.deepEqual(parseReference(full), parseReference(text))
    })
  }
  const bad: readonly (readonly [string, RegExp])[] = [
    ['', /empty/],
    ['https://docker.io/node', /leave out "https:\/\/"/],
    ['Node', /"Node"/],
    ['a/B/c', /"B"/],
    ['a//b', /""/],
    ['../x', /"\.\."/],
    ['a/../b', /"\.\."/],
    ['host.example:99999/a', /"99999"/],
    ['host.example:0/a', /"0"/],
    ['-bad.example/a', /"-bad.example"/],
    ['[zz]/a', /\[zz\]/],
    ['node:', /tag ""/],
    ['node:.x', /tag ".x"/],
    [`node:${'x'.repeat(129)}`, /tag/],
    ['node@sha256:abc', /3 hex digits/],
    ['node@md5:abc', /sha256/],
    [`node@${sha.toUpperCase()}`, /sha256/],
    ['a'.repeat(300), /255/],
    ['a b', /"a b"/],
    ['a\n', /must be/],
    ['a?x=y', /must be/],
    ['a%2f', /must be/],
  ]
  for (const [text, shows] of bad)
    test(`${JSON.stringify(text.slice(0, 40))} is refused`, () =>
      assert.throws(() => parseReference(text), { code: 'BAD_REFERENCE', message: shows }))
  test('any text gives a reference that reads back, or BAD_REFERENCE', () => {
    const parts = fc.array(
      fc.constantFrom(
        'a',
        'b.c',
        ':',
        '/',
        '@',
        '5',
        '_',
        '.',
        '-',
        'A',
        '[',
        ']',
        '::',
        sha,
        'sha256:',
        '%',
        '\0',
        'localhost',
      ),
      { maxLength: 12 },
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          parts.map((all) => all.join('')),
        ),
        (text) => {
          try {
            const reference = parseReference(text)
            assert.deepEqual(parseReference(formatReference(reference)), reference)
            assert.equal(new URL(`http://h/v2/${reference.repository}/x`).pathname, `/v2/${reference.repository}/x`)
          } catch (error) {
            assert.ok(error instanceof RegistryError && error.code === 'BAD_REFERENCE', String(error))
          }
        },
      ),
      { numRuns: 2000 },
    )
  })
  test('loopback', () => {
    for (const host of ['localhost', 'localhost:5000', '127.0.0.1', '127.1.2.3:1', '[::1]:5000'])
      assert.ok(isLoopback(host), host)
    for (const host of ['localhost.example', '127.0.0.1.example', '10.0.0.1', '[::2]:1'])
      assert.ok(!isLoopback(host), host)
  })
})

test('digests', () => {
  assert.equal(parseDigest(sha), sha)
  for (const text of [
    '',
    'sha256',
    'sha256:',
    `sha256:${'g'.repeat(64)}`,
    `constructor:${'a'.repeat(64)}`,
    `sha512:${'a'.repeat(64)}`,
    `${sha}0`,
    ` ${sha}`,
    `${sha}\n`,
  ]) {
    assert.throws(() => parseDigest(text), { code: 'BAD_DIGEST' }, JSON.stringify(text))
  }
})

describe('challenges', () => {
  const cases: readonly (readonly [string, unknown])[] = [
    ['Basic realm="x"', [{ scheme: 'basic', parameters: { realm: 'x' } }]],
    ['Basic', [{ scheme: 'basic', parameters: {} }]],
    [
      'Bearer realm="https://a/t?x=1,2",service=s,scope="repository:a/b:pull,push"',
      [
        {
          scheme: 'bearer',
          parameters: { realm: 'https://a/t?x=1,2', service: 's', scope: 'repository:a/b:pull,push' },
        },
      ],
    ],
    [
      'Negotiate, Bearer realm="a" , service="b", Basic realm="c"',
      [
        { scheme: 'negotiate', parameters: {} },
        { scheme: 'bearer', parameters: { realm: 'a', service: 'b' } },
        { scheme: 'basic', parameters: { realm: 'c' } },
      ],
    ],
    [
      'Negotiate abc==, BASIC Realm = "q\\"uo"',
      [
        { scheme: 'negotiate', parameters: {} },
        { scheme: 'basic', parameters: { realm: 'q"uo' } },
      ],
    ],
    ['Basic realm="open', [{ scheme: 'basic', parameters: {} }]],
    ['', []],
    ['"', []],
  ]
  for (const [header, wanted] of cases) test(header || 'empty', () => assert.deepEqual(parseChallenges(header), wanted))
  test('several headers', () => assert.equal(parseChallenges(['Basic realm="a"', 'Bearer realm="b"']).length, 2))
  test('any text ends', () =>
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('Basic', ' ', ',', '=', '"', '\\', 'a', 'x/+', '=='), { maxLength: 50 }),
        (parts) => void parseChallenges(parts.join('')),
      ),
      { numRuns: 1000 },
    ))
})

test('Content-Range', () => {
  assert.deepEqual(parseContentRange('bytes 1-2/3'), { start: 1, end: 2, total: 3 })
  assert.deepEqual(parseContentRange('bytes 1-2/*'), { start: 1, end: 2, total: undefined })
  for (const text of [
    undefined,
    '',
    'bytes 2-1/5',
    'bytes 1-5/5',
    'bytes */5',
    'bytes 1-9007199254740993/*',
    'bytes -1-2/3',
    ['a', 'b'],
  ])
    assert.equal(parseContentRange(text), undefined)
})

describe('platforms', () => {
  const entry = (platform: string | undefined, features?: string[]): object => {
    const parsed = platform === undefined ? undefined : parsePlatform(platform)
    return {
      mediaType: MEDIA_TYPES.ociManifest,
      digest: digestOf(Buffer.from(`${platform} ${features?.join()}`)),
      size: 1,
      ...(parsed && { platform: { ...parsed, ...(features && { 'os.features': features }) } }),
    }
  }
  const cases: readonly (readonly [string, (string | undefined)[], string | undefined])[] = [
    ['linux/amd64', ['linux/arm64', 'linux/amd64'], 'linux/amd64'],
    ['linux/amd64', ['linux/386'], 'linux/386'],
    ['linux/amd64', ['linux/amd64/v2'], undefined],
    ['linux/amd64/v3', ['linux/amd64', 'linux/amd64/v2'], 'linux/amd64/v2'],
    ['linux/arm', ['linux/arm/v5', 'linux/arm/v6', 'linux/arm/v8'], 'linux/arm/v6'],
    ['linux/arm/v6', ['linux/arm/v7'], undefined],
    ['linux/arm64', ['linux/arm/v7', 'linux/arm64'], 'linux/arm64'],
    ['linux/arm64', ['linux/arm/v6', 'linux/arm/v7'], 'linux/arm/v7'],
    ['linux/aarch64/v8', ['linux/arm64'], 'linux/arm64'],
    ['windows/amd64', ['linux/amd64'], undefined],
    ['linux/amd64', [undefined], 'none'],
    ['linux/amd64', [undefined, undefined], undefined],
  ]
  for (const [wanted, offered, chosen] of cases) {
    test(`${wanted} of ${offered.join(', ')}`, () => {
      const index = { schemaVersion: 2, manifests: offered.map((platform) => entry(platform)) }
      const found = selectPlatform(index as never, parsePlatform(wanted))
      assert.equal(
        found === undefined ? undefined : found.platform === undefined ? 'none' : formatPlatform(found.platform),
        chosen,
      )
    })
  }
  test('the OCI image comes before the Nydus image of the same platform', () => {
    const index = {
      schemaVersion: 2,
      manifests: [entry('linux/amd64', ['nydus.remoteimage.v1']), entry('linux/amd64')],
    }
    assert.equal(selectPlatform(index as never, parsePlatform('amd64'))?.platform?.['os.features'], undefined)
    const nydus = { ...parsePlatform('amd64'), 'os.features': ['nydus.remoteimage.v1'] }
    assert.deepEqual(selectPlatform(index as never, nydus)?.platform?.['os.features'], ['nydus.remoteimage.v1'])
  })
  test('nonsense is refused', () => {
    for (const text of ['', 'a/b/c/d', 'linux/', 'linux/%', 'a b'])
      assert.throws(() => parsePlatform(text), { code: 'BAD_REFERENCE' })
  })
})

describe('manifests', () => {
  const descriptor = { mediaType: 'x/y', digest: sha, size: 5 }
  const image = { schemaVersion: 2, config: descriptor, layers: [descriptor] }
  const parse = (value: unknown, type: string = MEDIA_TYPES.ociManifest): unknown =>
    parseManifest(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)), type)
  test('good ones', () => {
    assert.deepEqual(parse(image), { kind: 'image', image })
    assert.deepEqual(parse({ schemaVersion: 2, manifests: [descriptor] }, 'application/json'), {
      kind: 'index',
      index: { schemaVersion: 2, manifests: [descriptor] },
    })
    assert.deepEqual(parse(image, `${MEDIA_TYPES.dockerManifest}; charset=utf-8`), { kind: 'image', image })
  })
  const bad: readonly (readonly [string, unknown, RegExp])[] = [
    ['no JSON', '{', /not JSON/],
    ['a list', [], /document/],
    ['deep nesting', '['.repeat(1_000_000), /manifest/],
    ['schema 1', { schemaVersion: 1 }, /schemaVersion is 1/],
    ['image and index at once', { ...image, manifests: [] }, /manifests is "present"/],
    ['no config', { ...image, config: undefined }, /config/],
    ['layers that are no list', { ...image, layers: {} }, /layers/],
    ['too many layers', { ...image, layers: Array.from({ length: 1001 }, () => descriptor) }, /1001 entries/],
    ['a negative size', { ...image, layers: [{ ...descriptor, size: -1 }] }, /layers\[0\]\.size/],
    ['a size past 2^53', { ...image, layers: [{ ...descriptor, size: 2 ** 53 }] }, /layers\[0\]\.size/],
    [
      'a digest with a path',
      { ...image, layers: [{ ...descriptor, digest: 'sha256:../../etc' }] },
      /layers\[0\]\.digest/,
    ],
    ['annotations that are no text', { ...image, annotations: { a: 1 } }, /annotations\.a/],
    ['an unknown type', { ...image, mediaType: 'text/html' }, /text\/html/],
    ['more than 8 MiB', ' '.repeat((8 << 20) + 1), /bytes/],
  ]
  for (const [name, value, message] of bad)
    test(`${name} is BAD_MANIFEST`, () => assert.throws(() => parse(value), { code: 'BAD_MANIFEST', message }))
  test('configs', () => {
    const config = { os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [sha] }, extra: 1 }
    assert.deepEqual(parseImageConfig(Buffer.from(JSON.stringify(config))), config)
    for (const wrong of [
      { ...config, os: 5 },
      { ...config, rootfs: {} },
      { ...config, rootfs: { type: 'layers', diff_ids: ['x'] } },
      { ...config, history: [1] },
    ]) {
      assert.throws(() => parseImageConfig(Buffer.from(JSON.stringify(wrong))), { code: 'BAD_MANIFEST' })
    }
  })
  test('any JSON gives a manifest or BAD_MANIFEST', () => {
    fc.assert(
      fc.property(
        fc.record(
          {
            schemaVersion: fc.constant(2),
            config: fc.anything(),
            layers: fc.anything(),
            manifests: fc.anything(),
            subject: fc.anything(),
          },
          { requiredKeys: ['schemaVersion'] },
        ),
        (value) => {
          try {
            parse(JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? 0 : part)))
          } catch (error) {
            assert.ok(error instanceof RegistryError && error.code === 'BAD_MANIFEST', String(error))
          }
        },
      ),
    )
  })
})
