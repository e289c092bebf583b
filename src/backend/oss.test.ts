import assert from 'node:assert/strict'
import { test } from 'node:test'
import { backendConformance, patience, pattern, sha256, type Subject } from './conformance.ts'
import { ossVerifier, startObjectStore, unsignedOnly } from './testing/object-store.ts'
import { type OssOptions, ossBackend } from './oss.ts'
import { signOss } from './oss-signature.ts'

const KEYS = {
  accessKeyId: '44CF9590006BF252F707',
  accessKeySecret: 'OtxrzxIsfpFjA7SwPzILwy8Bw21TLhquhboDYROV',
  sessionToken: '',
}
const OPTIONS: OssOptions = {
  scheme: 'http',
  endpoint: '',
  bucket: 'oss-example',
  prefix: 'nydus/',
  ...KEYS,
  skipVerify: false,
  ca: '',
  timeoutMs: 60_000,
  connectTimeoutMs: 60_000,
}
const BLOB = pattern(100_000)
const ID = sha256(BLOB)

async function subject(): Promise<Subject> {
  const store = await startObjectStore(ossVerifier(KEYS, (request) => decodeURIComponent(request.url ?? '')))
  const backend = ossBackend({ ...OPTIONS, endpoint: `127.0.0.1:${store.port}` })
  return {
    backend,
    async put(bytes) {
      store.objects.set(`/oss-example/nydus/${sha256(bytes)}`, bytes)
      return sha256(bytes)
    },
    async [Symbol.asyncDispose]() {
      await backend.close()
      await store[Symbol.asyncDispose]()
    },
  }
}

backendConformance('oss', subject)

test("signs as the service's own example does", () => {
  const headers = {
    'content-md5': 'ODBGOERFMDMzQTczRUY3NUE3NzA5QzdFNUYzMDQxNEM=',
    'content-type': 'text/html',
    date: 'Thu, 17 Nov 2005 18:49:58 GMT',
    host: 'oss-example.oss-cn-hangzhou.aliyuncs.com',
    'x-oss-meta-author': 'foo@bar.com',
    'x-oss-magic': 'abracadabra',
  }
  assert.equal(
    signOss({ method: 'PUT', resource: '/oss-example/nelson', headers }, KEYS),
    'OSS 44CF9590006BF252F707:26NBxoKdsyly4EDv6inkoDft/yA=',
  )
})

test('keys that must be encoded are signed as they are called; tokens are signed; without keys nothing is', async () => {
  const cases: ReadonlyArray<Partial<OssOptions>> = [
    { prefix: "a b/ü(1)*!'+&=?#%/" },
    { prefix: '' },
    { sessionToken: 'CAIS8QF1q6Ft/+==' },
  ]
  for (const more of cases) {
    const options = { ...OPTIONS, ...more }
    await using store = await startObjectStore(ossVerifier(options, (request) => decodeURIComponent(request.url ?? '')))
    store.objects.set(`/oss-example/${options.prefix}${ID}`, BLOB)
    const backend = ossBackend({ ...options, endpoint: `127.0.0.1:${store.port}` })
    const into = Buffer.alloc(1000)
    await (await backend.open(ID)).read(5000, into, patience())
    assert.ok(into.equals(BLOB.subarray(5000, 6000)))
    await backend.close()
  }
  await using open = await startObjectStore(unsignedOnly)
  open.objects.set(`/oss-example/nydus/${ID}`, BLOB)
  const anonymous = ossBackend({ ...OPTIONS, endpoint: `127.0.0.1:${open.port}`, accessKeyId: '', accessKeySecret: '' })
  assert.equal(await (await anonymous.open(ID)).size(patience().signal), BLOB.length)
  await anonymous.close()
})

test('wrong keys are UNAUTHORIZED, with the code of the service', async () => {
  await using store = await startObjectStore(ossVerifier(KEYS, (request) => decodeURIComponent(request.url ?? '')))
  const backend = ossBackend({ ...OPTIONS, endpoint: `127.0.0.1:${store.port}`, accessKeySecret: 'wrong' })
  const reader = await backend.open(ID)
  const refused = { code: 'UNAUTHORIZED', message: /SignatureDoesNotMatch/, retryable: false }
  await assert.rejects(reader.read(0, Buffer.alloc(1), patience()), refused)
  await backend.close()
})
