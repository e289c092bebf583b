import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Backend } from './backend.ts'
import { backendConformance, patience, pattern, sha256, type Subject } from './conformance.ts'
import { s3Verifier, startObjectStore, unsignedOnly } from './testing/object-store.ts'
import { type S3Options, s3Backend } from './s3.ts'
import { signS3 } from './s3-signature.ts'

const KEYS = { accessKeyId: 'AKIDEXAMPLE', accessKeySecret: 'wJalr/XUtn+FEMI', sessionToken: '' }
const OPTIONS: S3Options = {
  scheme: 'http',
  endpoint: '',
  region: 'eu-test-1',
  bucket: 'images',
  prefix: 'nydus/',
  ...KEYS,
  skipVerify: false,
  ca: '',
  timeoutMs: 60_000,
  connectTimeoutMs: 60_000,
}
const BLOB = pattern(300_000)
const ID = sha256(BLOB)

async function readAll(backend: Backend): Promise<void> {
  const into = Buffer.alloc(BLOB.length)
  const reader = await backend.open(ID)
  await reader.read(0, into, patience())
  assert.ok(into.equals(BLOB))
  assert.equal(await reader.size(patience().signal), BLOB.length)
}

async function subject(): Promise<Subject> {
  const store = await startObjectStore(s3Verifier(OPTIONS.region, KEYS))
  const backend = s3Backend({ ...OPTIONS, endpoint: `127.0.0.1:${store.port}` })
  return {
    backend,
    async put(bytes) {
      store.objects.set(`/images/nydus/${sha256(bytes)}`, bytes)
      return sha256(bytes)
    },
    async [Symbol.asyncDispose]() {
      await backend.close()
      await store[Symbol.asyncDispose]()
    },
  }
}

backendConformance('s3', subject)

test("signs as Amazon's own example does", () => {
  const { authorization } = signS3(
    {
      method: 'GET',
      url: new URL('https://examplebucket.s3.amazonaws.com/test.txt'),
      headers: { range: 'bytes=0-9', 'user-agent': 'not signed' },
    },
    {
      region: 'us-east-1',
      now: new Date('2013-05-24T00:00:00Z'),
      keys: {
        accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
        accessKeySecret: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
        sessionToken: '',
      },
    },
  )
  assert.match(authorization ?? '', /SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, /)
  assert.match(authorization ?? '', /Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41$/)
})

test('signs names that must be encoded, session tokens and extra headers; without keys nothing', async () => {
  const cases: ReadonlyArray<Partial<S3Options>> = [
    { prefix: "a b/ü(1)*!'+&=?#%/~_.-/" },
    { prefix: '' },
    { prefix: '//x//' },
    { sessionToken: 'FwoGZXIvYXdzEBY/+=' },
    { headers: { 'X-Trace': 'one  two ', 'x-amz-request-payer': 'requester', 'User-Agent': 'nydusd/9' } },
  ]
  for (const more of cases) {
    const options = { ...OPTIONS, ...more }
    await using store = await startObjectStore(s3Verifier(options.region, options))
    store.objects.set(`/images/${options.prefix}${ID}`, BLOB)
    const backend = s3Backend({ ...options, endpoint: `127.0.0.1:${store.port}` })
    await readAll(backend)
    await backend.close()
  }
  await using open = await startObjectStore(unsignedOnly)
  open.objects.set(`/images/nydus/${ID}`, BLOB)
  const anonymous = s3Backend({ ...OPTIONS, endpoint: `127.0.0.1:${open.port}`, accessKeyId: '', accessKeySecret: '' })
  await readAll(anonymous)
  await anonymous.close()
})

test('what a bucket refuses is told by its own code, with what helps, and without secrets', async () => {
  await using store = await startObjectStore(s3Verifier(OPTIONS.region, KEYS))
  store.objects.set(`/images/nydus/${ID}`, BLOB)
  const cases: ReadonlyArray<readonly [Partial<S3Options>, string, RegExp]> = [
    [{ accessKeySecret: 's3cret' }, 'UNAUTHORIZED', /SignatureDoesNotMatch.*access_key_secret/],
    [{ accessKeyId: 'nobody' }, 'UNAUTHORIZED', /InvalidAccessKeyId/],
    [{ sessionToken: 'old' }, 'UNAUTHORIZED', /InvalidToken.*session_token/],
    [{ region: 'elsewhere' }, 'BAD_OPTION', /AuthorizationHeaderMalformed.*region/],
    [{ accessKeyId: '', accessKeySecret: '' }, 'FORBIDDEN', /AccessDenied/],
    [{ prefix: 'other/' }, 'NOT_FOUND', /NoSuchKey.*object_prefix/],
  ]
  for (const [more, code, message] of cases) {
    const backend = s3Backend({ ...OPTIONS, ...more, endpoint: `127.0.0.1:${store.port}` })
    await assert.rejects(readAll(backend), (error: Error & { code: string; retryable: boolean }) => {
      assert.deepEqual([error.code, error.retryable], [code, false], error.message)
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /s3cret|no secret/)
      return true
    })
    await backend.close()
  }
})

test('SlowDown and Retry-After are failures that another try may cure', async () => {
  await using store = await startObjectStore(s3Verifier(OPTIONS.region, KEYS))
  store.objects.set(`/images/nydus/${ID}`, BLOB)
  store.failures.push({ status: 503, code: 'SlowDown', headers: { 'retry-after': '7' } }, { status: 500 })
  const backend = s3Backend({ ...OPTIONS, endpoint: `127.0.0.1:${store.port}` })
  await assert.rejects(readAll(backend), { code: 'RATE_LIMITED', status: 503, retryAfterMs: 7000, retryable: true })
  await assert.rejects(readAll(backend), { code: 'SERVER', status: 500, retryable: true })
  await readAll(backend)
  await backend.close()
})

test('reads at once use at most 32 connections, and these again', async () => {
  await using store = await startObjectStore(s3Verifier(OPTIONS.region, KEYS))
  store.objects.set(`/images/nydus/${ID}`, BLOB)
  const backend = s3Backend({ ...OPTIONS, endpoint: `127.0.0.1:${store.port}` })
  for (let round = 0; round < 3; round += 1) await Promise.all(Array.from({ length: 60 }, () => readAll(backend)))
  assert.equal(store.requests.length, 360)
  assert.ok(store.connections().most <= 32, String(store.connections().most))
  await backend.close()
})

test('options that make no address are refused, and no secret is shown', () => {
  const bad: ReadonlyArray<Partial<S3Options>> = [
    { scheme: 'ftp' },
    { endpoint: 'https://host' },
    { endpoint: 'host/path' },
    { endpoint: 'user:s3cret@host' },
    { bucket: '' },
    { bucket: 'a/b' },
    { bucket: '..' },
    { region: '' },
    { region: 'a/b' },
    { prefix: '../' },
    { prefix: 'a/./b' },
    { prefix: 'a\n' },
    { prefix: '\ud800' },
    { accessKeyId: '' },
    { accessKeySecret: '' },
    { accessKeySecret: 's3cret\r\nX: y' },
    { ca: 'no PEM' },
  ]
  for (const more of bad)
    assert.throws(
      () => s3Backend({ ...OPTIONS, endpoint: 'host', ...more }),
      (error: Error) => 'code' in error && error.code === 'BAD_OPTION' && !error.message.includes('s3cret'),
      JSON.stringify(more),
    )
  assert.equal(s3Backend(OPTIONS).name, 's3') // a blank endpoint is Amazon's
})
