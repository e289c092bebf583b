import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { registryAccess } from './registry-access.ts'

const fuse = { fsDriver: 'fusedev', skipSslVerify: false }
const v1 = (config: object, type = 'registry') => ({ device: { backend: { type, config } } })

test('the template of nydusd says how registries are spoken to, in all of its shapes', () => {
  const insecure = { skipVerify: true, plainHttp: 'fallback' }
  assert.deepEqual(registryAccess(v1({ skip_verify: true }), fuse), insecure)
  assert.deepEqual(registryAccess({ backend: { type: 'registry', registry: { skip_verify: true } } }, fuse), insecure)
  const fscache = { config: { backend_type: 'registry', backend_config: { skip_verify: true } } }
  assert.deepEqual(registryAccess(fscache, { ...fuse, fsDriver: 'fscache' }), insecure)
  assert.deepEqual(registryAccess(v1({ scheme: 'http' }), fuse), { skipVerify: false, plainHttp: 'always' })
})

test('anything else is TLS that is verified, but for localhost', () => {
  const secure = { skipVerify: false, plainHttp: 'localhost' }
  for (const template of [
    undefined,
    null,
    'x',
    [],
    {},
    v1({}),
    v1({ skip_verify: 'true' }),
    v1({ skip_verify: true }, 'oss'),
    { device: null },
  ])
    assert.deepEqual(registryAccess(template, fuse), secure)
})

test('with other drivers remote.skip_ssl_verify counts', () => {
  const of = { fsDriver: 'blockdev', skipSslVerify: true }
  assert.deepEqual(registryAccess(v1({}), of), { skipVerify: true, plainHttp: 'fallback' })
  assert.equal(registryAccess(v1({ skip_verify: true }), { ...of, skipSslVerify: false }).skipVerify, false)
})

test('certificates of the template are trusted', () => {
  const { ca } = registryAccess(v1({ ca_cert_files: [import.meta.filename, 7] }), fuse)
  assert.equal(ca, readFileSync(import.meta.filename, 'utf8'))
  assert.throws(() => registryAccess(v1({ ca_cert_files: ['/none/ca.pem'] }), fuse), { code: 'BAD_CONFIG' })
})
