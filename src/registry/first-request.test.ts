import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { RegistryClient, RegistryError, anonymous, parseReference, sha256Digest } from './index.ts'

test('a caller who gives up while the first request to a registry hangs is told, and the process goes on', {
  timeout: 20_000,
}, async () => {
  const silent = createServer(() => {})
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const client = new RegistryClient({ credentials: anonymous(), plainHttp: 'fallback' })
  const repository = client.repository(parseReference(`127.0.0.1:${port}/a/b:c`))
  const read = (signal: AbortSignal): Promise<unknown> =>
    repository.readRange(sha256Digest('0'.repeat(64)), 0, new Uint8Array(8), { signal }).then(
      () => 'bytes',
      (error: unknown) => (error instanceof RegistryError ? error.code : error),
    )
  const patient = new AbortController()
  const first = read(patient.signal)
  const others = Array.from({ length: 4 }, () => read(AbortSignal.timeout(50)))
  assert.deepEqual(
    await Promise.all(others),
    Array.from({ length: 4 }, () => 'ABORTED'),
  )
  patient.abort()
  assert.equal(await first, 'ABORTED')
  await client.close()
  silent.close()
})
