import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { RegistryClient, RegistryError, anonymous, parseReference, sha256Digest } from './index.ts'

test('a caller who gives up while the first request to a registry hangs is told, and the process goes on', {
  timeout: 180_000,
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

test('who waits for the first request to a registry waits for its answer, not for its body', {
  timeout: 180_000,
}, async () => {
  const head = 'HTTP/1.1 206 OK\r\nContent-Range: bytes 0-7/99\r\nContent-Length: 8\r\n\r\n'
  let asked = 0
  const slow = createServer((socket) => {
    socket.on('data', () => socket.write(asked++ === 0 ? head : `${head}01234567`)).on('error', () => {})
  })
  slow.listen(0, '127.0.0.1')
  await once(slow, 'listening')
  const { port } = slow.address() as AddressInfo
  const client = new RegistryClient({ credentials: anonymous(), plainHttp: 'always' })
  const repository = client.repository(parseReference(`127.0.0.1:${port}/a/b:c`))
  const patient = new AbortController()
  const read = async (signal?: AbortSignal): Promise<string> => {
    const bytes = new Uint8Array(8)
    await repository.readRange(sha256Digest('0'.repeat(64)), 0, bytes, signal === undefined ? {} : { signal })
    return Buffer.from(bytes).toString()
  }
  const first = assert.rejects(read(patient.signal), { code: 'ABORTED' })
  assert.equal(await read(), '01234567')
  patient.abort()
  await first
  await client.close()
  slow.close()
})
