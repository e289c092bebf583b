import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { test } from 'node:test'
import { Link } from './link.ts'

test('a link carries every byte both ways and counts them', async () => {
  const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert(address !== null && typeof address === 'object')
  const link = await Link.start({
    bitsPerSecond: 1e9,
    roundTripMs: 2,
    target: { host: '127.0.0.1', port: address.port },
  })
  try {
    const sent = Buffer.alloc(3_000_001, 'the quick brown fox')
    const socket = connect(link.port, '127.0.0.1')
    socket.end(sent)
    const got: Buffer[] = []
    for await (const bytes of socket) got.push(bytes as Buffer)
    assert.ok(Buffer.concat(got).equals(sent))
    assert.deepEqual(link.counters, { connections: 1, bytesUp: sent.length, bytesDown: sent.length })
  } finally {
    await link.close()
    server.close()
  }
})

test('bytes do not arrive sooner than bandwidth and delay allow', async () => {
  const body = Buffer.alloc(250_000)
  const server = createServer((socket) => socket.end(body)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert(address !== null && typeof address === 'object')
  const link = await Link.start({
    bitsPerSecond: 10e6,
    roundTripMs: 40,
    target: { host: '127.0.0.1', port: address.port },
  })
  try {
    const from = performance.now()
    const socket = connect(link.port, '127.0.0.1')
    socket.write('go')
    let bytes = 0
    for await (const part of socket) bytes += (part as Buffer).length
    assert.equal(bytes, body.length)
    // 250,000 bytes at 10 Mbit/s take 200 ms, and the last one needs half a round trip more: a bound from below, never from above.
    assert.ok(performance.now() - from >= 200)
  } finally {
    await link.close()
    server.close()
  }
})
