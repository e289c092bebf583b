import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type BlobReader, localfsBackend } from '../backend/index.ts'
import { BLOB_FEATURES, type BlobInfo } from '../blob/index.ts'
import { parseConfig } from './config/document.ts'
import { withExternalBlobs } from './external-blobs.ts'
import { FIXED_LOGIN } from './live-login.ts'
import { FIXED_PROXY } from './live-proxy.ts'

const ID = 'e'.repeat(64)
const BLOB = { id: ID, features: BLOB_FEATURES.EXTERNAL } as BlobInfo // nothing else of it counts here
const SILENT = { type: 'http-proxy', config: { addr: 'http://127.0.0.1:1', retry_limit: '1' }, patch: {} }
const OWN = btoa('reader:own')

test('the login of the image’s registry, which the API may set, is not sent to the registries of external blobs', async () => {
  const seen = new Set<string | undefined>()
  const server = createServer(({ headers }, response) => {
    seen.add(headers.authorization)
    if (headers.authorization === `Basic ${OWN}`) response.writeHead(200, { 'content-length': 5 }).end()
    else response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const entry = { type: 'registry', config: { host, repo: 'a/b', scheme: 'http', auth: OWN }, patch: {} }
  const { config } = parseConfig(JSON.stringify({ version: 2, external_backends: [entry] }), 'a')
  try {
    const main = localfsBackend({ dir: '/nowhere' })
    const request = { config, proxy: FIXED_PROXY, login: { ...FIXED_LOGIN, auth: () => btoa('somebody:else') } }
    const backend = await withExternalBlobs(main, [BLOB], request)
    assert.equal(await (await backend.open(ID)).size(AbortSignal.timeout(5000)), 5)
    await backend.close()
  } finally {
    server.closeAllConnections()
    server.close()
  }
  assert.deepEqual(seen, new Set([undefined, `Basic ${OWN}`]))
})

test('a place that does not answer now is taken for one that has the blob, unless another has it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'external-'))
  const { config } = parseConfig(JSON.stringify({ version: 2, external_backends: [SILENT] }), 'a')
  try {
    const open = async (): Promise<BlobReader> => {
      const backend = await withExternalBlobs(localfsBackend({ dir: folder }), [BLOB], { config, proxy: FIXED_PROXY })
      return await backend.open(ID)
    }
    await assert.rejects((await open()).size(AbortSignal.timeout(5000)), { code: 'UNREACHABLE' })
    writeFileSync(join(folder, ID), 'bytes')
    const reader = await open()
    assert.equal(await reader.size(AbortSignal.timeout(5000)), 5)
    await reader.close()
  } finally {
    rmSync(folder, { recursive: true })
  }
})
