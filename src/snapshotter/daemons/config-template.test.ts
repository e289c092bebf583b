import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { CRI_IMAGE_REF } from '../labels.ts'
import type { Snapshot } from '../snapshot.ts'
import { ConfigTemplate, type Credential, readConfig, writePrivately } from './config-template.ts'
import { writeImageConfig } from './image-config.ts'
import { imageKey, referenceOf, registryOf } from './image-request.ts'
import type { DaemonSettings } from './settings.ts'

const folder = mkdtempSync(join(tmpdir(), 'config-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const V1 = {
  device: {
    backend: { type: 'registry', config: { scheme: 'http', auth: 'dGVtcGxhdGU6eA==', timeout: 9, later_key: 1 } },
    cache: { type: 'blobcache', config: { disable_indexed_map: true } },
  },
  mode: 'direct',
  a_key_of_tomorrow: { deep: [1, null] },
}
const V2 = {
  version: 2,
  backend: { type: 'registry', registry: { host: 'template.example', repo: 'template/repo' } },
  cache: { type: 'filecache', filecache: { enable_encryption: false } },
  rafs: { mode: 'direct' },
}

async function templateOf(document: unknown): Promise<ConfigTemplate> {
  const path = join(folder, `template-${process.hrtime.bigint()}.json`)
  writeFileSync(path, typeof document === 'string' ? document : JSON.stringify(document))
  return await ConfigTemplate.read(path)
}

const FACTS = {
  key: '5',
  host: 'registry.example:5000',
  repository: 'a/b',
  credential: undefined,
  backend: {},
  cacheDirectory: '/cache',
  cacheBytes: Number.POSITIVE_INFINITY,
  idMapping: undefined,
}

test('a quota of the cache is the limit that nydusd keeps to, in both versions', async () => {
  const first = (await templateOf(V1)).render({ ...FACTS, cacheBytes: 1 << 30 }) as typeof V1
  assert.deepEqual(
    [first.device.cache.config],
    [{ ...V1.device.cache.config, work_dir: '/cache', size_limit: 1 << 30 }],
  )
  const second = await templateOf({ version: 2, backend: { type: 'registry' }, cache: { type: 'blobcache' } })
  assert.deepEqual(second.render({ ...FACTS, cacheBytes: 5 })['cache'], {
    type: 'blobcache',
    filecache: { work_dir: '/cache', size_limit: 5 },
  })
})

test('version 1: what differs is filled in, and everything else stays', async () => {
  const template = await templateOf(V1)
  const credential: Credential = { username: 'me', password: 'a:b' }
  const rendered = template.render({
    ...FACTS,
    credential,
    backend: { mirrors: [{ host: 'http://m' }] },
    idMapping: [0, 100_000, 65_536],
  })
  assert.deepEqual(rendered, {
    device: {
      id: '/5',
      backend: {
        type: 'registry',
        config: {
          scheme: 'http',
          timeout: 9,
          later_key: 1,
          host: 'registry.example:5000',
          repo: 'a/b',
          mirrors: [{ host: 'http://m' }],
          auth: Buffer.from('me:a:b').toString('base64'),
        },
      },
      cache: { type: 'blobcache', config: { disable_indexed_map: true, work_dir: '/cache' } },
    },
    mode: 'direct',
    a_key_of_tomorrow: { deep: [1, null] },
    id_mapping: [0, 100_000, 65_536],
  })
  // the template itself is as it was, and without a login its own stays
  const plain = template.render(FACTS) as typeof V1
  assert.equal(plain.device.backend.config.auth, 'dGVtcGxhdGU6eA==')
  assert.equal('id_mapping' in plain, false)
})

test('version 2: the same, in its own places; a token takes the place of a login', async () => {
  const rendered = (await templateOf(V2)).render({ ...FACTS, credential: { token: 'secret token' } })
  assert.deepEqual(rendered, {
    ...V2,
    id: '/5',
    backend: {
      type: 'registry',
      registry: { host: 'registry.example:5000', repo: 'a/b', registry_token: 'secret token' },
    },
    cache: { type: 'filecache', filecache: { enable_encryption: false, work_dir: '/cache' } },
  })
  assert.equal(ConfigTemplate.relogin(rendered, { username: 'u', password: 'p' }), true)
  assert.deepEqual(ConfigTemplate.loginIn(rendered), { auth: btoa('u:p') })
  assert.equal(JSON.stringify(rendered).includes('secret token'), false)
})

test('other backends keep what they have; what cannot be used is named', async () => {
  const local = await templateOf({
    device: { backend: { type: 'localfs', config: { dir: '/blobs' } } },
    mode: 'direct',
  })
  assert.deepEqual(
    (local.render({ ...FACTS, credential: { token: 'x' } }) as { device: { backend: unknown } }).device.backend,
    {
      type: 'localfs',
      config: { dir: '/blobs' },
    },
  )
  for (const [document, message] of [
    ['{ "auth": "c2VjcmV0"', /is no JSON$/],
    ['[]', /is no JSON object/],
    [{ device: { backend: { type: 'ftp' } } }, /backend type "ftp" cannot be used; write "registry"/],
    [{ device: [] }, /"device" is no object/],
    [{}, /backend type undefined cannot be used/],
    [{ type: 'bootstrap', config: {} }, /is a template for fscache, which is not served/],
  ] as const)
    await assert.rejects(templateOf(document), { code: 'BAD_CONFIG', message })
  await assert.rejects(ConfigTemplate.read(join(folder, 'nowhere')), {
    code: 'BAD_CONFIG',
    message: /nydusd_config .* cannot be read/,
  })
})

test('what has logins in it can be read by its owner only, appears whole, and is shown without them', async () => {
  const path = join(folder, 'private/config.json')
  const document = { registry: { auth: 'x', registry_token: 'y', host: 'h' } }
  await writePrivately(path, JSON.stringify(document))
  assert.equal(statSync(path).mode & 0o777, 0o600)
  assert.deepEqual(readdirSync(join(folder, 'private')), ['config.json'])
  assert.deepEqual(await readConfig(path), document)
  writeFileSync(path, '{"auth":"secret')
  await assert.rejects(
    readConfig(path),
    (error: Error) => !error.message.includes('secret') && /is no JSON/.test(error.message),
  )
})

test('an image gets its registry and login; without a name only a template that has both will do', async () => {
  const path = join(folder, 'image/config.json')
  const asked: string[] = []
  const credentials = {
    find: async (reference: string): Promise<Credential> => {
      asked.push(reference)
      return { username: 'u', password: 'p' }
    },
  }
  const mirrors = { find: async (host: string) => ({ mirrors: [{ host: `http://mirror.${host}` }] }) }
  const settings = { cache: { dir: '/cache' } } as unknown as DaemonSettings // nothing else is read
  const labels = new Map([[CRI_IMAGE_REF, 'node:24']])
  const snapshot = { id: 5, key: 'layer' } as Snapshot // nothing else is read
  const sources = { settings, template: await templateOf(V1), credentials, mirrors }
  const request = { snapshot, directory: '/d', reference: referenceOf(labels), labels }
  await writeImageConfig(path, request, sources, AbortSignal.timeout(1000))
  const written = JSON.parse(readFileSync(path, 'utf8')) as typeof V1
  assert.deepEqual(asked, ['node:24'])
  assert.deepEqual(
    { ...written.device.backend.config },
    {
      scheme: 'http',
      timeout: 9,
      later_key: 1,
      host: 'index.docker.io',
      repo: 'library/node',
      mirrors: [{ host: 'http://mirror.index.docker.io' }],
      auth: btoa('u:p'),
    },
  )
  const nameless = { ...request, reference: '', labels: new Map<string, string>() }
  await assert.rejects(writeImageConfig(path, nameless, sources, AbortSignal.timeout(1000)), {
    code: 'FAILED_PRECONDITION',
    message: /failed to find image ref of snapshot layer/,
  })
  await writeImageConfig(path, nameless, { ...sources, template: await templateOf(V2) }, AbortSignal.timeout(1000))
  assert.match(readFileSync(path, 'utf8'), /template\.example/)
  assert.deepEqual(asked, ['node:24'])
})

test('names of mounted images and of registries', () => {
  assert.equal(imageKey(7, undefined), '7')
  assert.equal(imageKey(7, { container: 0, host: 100_000, size: 65_536 }), '7-userns-100000')
  assert.deepEqual(registryOf('docker.io/library/node@sha256:' + 'a'.repeat(64)), {
    host: 'index.docker.io',
    repository: 'library/node',
  })
  assert.deepEqual(registryOf('localhost:5000/x/y:1'), { host: 'localhost:5000', repository: 'x/y' })
  assert.throws(() => registryOf('../../etc'), { code: 'INVALID_ARGUMENT' })
})
