import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Handlers, serve, service, STATUS_CODE, Snapshots } from './index.ts'

const OWNER = { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
/** `StatSnapshotRequest { key: "k" }`, behind its prefix. */
const REQUEST = Buffer.from('000000000312016b', 'hex')

/** A server of `Stat`, and a client of HTTP/2 that says what it likes. */
async function started(t: TestContext, stat: Handlers<typeof Snapshots>['stat']): Promise<ClientHttp2Session> {
  const folder = mkdtempSync(join(tmpdir(), 'unary-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 's.sock')
  const server = await serve({ path, ...OWNER, services: [service(Snapshots, { stat } as never)], raw: [] })
  t.after(async () => await server.stop(0))
  const session = connect('http://localhost', { createConnection: () => createConnection(path) })
  session.on('error', () => {})
  t.after(() => session.destroy())
  return session
}

interface Asked {
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: readonly Buffer[]
}

/** What the server says to a request; trailers count as headers. */
async function ask(session: ClientHttp2Session, { headers = {}, body = [REQUEST] }: Asked) {
  const stream = session.request({
    ':method': 'POST',
    ':path': '/containerd.services.snapshots.v1.Snapshots/Stat',
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  })
  const told: IncomingHttpHeaders = {}
  const parts: Buffer[] = []
  stream.on('response', (given) => Object.assign(told, given))
  stream.on('trailers', (given) => Object.assign(told, given))
  stream.on('data', (chunk: Buffer) => parts.push(chunk))
  for (const part of body) stream.write(part)
  stream.end()
  await once(stream, 'close')
  return {
    status: Number(told[':status']),
    code: Number(told['grpc-status']),
    message: decodeURI(String(told['grpc-message'] ?? '')),
    data: Buffer.concat(parts),
  }
}

test('a request may come in pieces; the answer has its prefix, its headers and its status', async (t) => {
  const namespaces: string[] = []
  const session = await started(t, async ({ key }, { namespace }) => {
    namespaces.push(namespace)
    return { info: { name: key } }
  })
  const body = [...REQUEST].map((byte) => Buffer.from([byte]))
  const headers = {
    'content-type': 'application/grpc+proto',
    'containerd-namespace': 'k8s.io',
    'grpc-timeout': '99999999H',
  }
  const { status, code, data } = await ask(session, { headers, body })
  assert.deepEqual([status, code, data.toString('hex')], [200, 0, '00000000050a030a016b'])
  assert.equal((await ask(session, {})).code, 0)
  assert.deepEqual(namespaces, ['k8s.io', ''])
})

test('what is not one whole message is refused before anything is done, and the connection goes on', async (t) => {
  let calls = 0
  const session = await started(t, async () => {
    calls += 1
    return {}
  })
  const { INTERNAL, UNIMPLEMENTED, RESOURCE_EXHAUSTED } = STATUS_CODE
  const compressed = Buffer.from(REQUEST)
  compressed[0] = 1
  const endless = Buffer.concat([Buffer.from('00ffffffff', 'hex'), Buffer.alloc(20)])
  const cases: Array<[string, Asked, number, RegExp]> = [
    ['nothing', { body: [] }, INTERNAL, /not one whole message, but 0 bytes/],
    ['half a prefix', { body: [REQUEST.subarray(0, 3)] }, INTERNAL, /3 bytes/],
    ['half a message', { body: [REQUEST.subarray(0, 6)] }, INTERNAL, /6 bytes/],
    ['two messages', { body: [REQUEST, REQUEST] }, INTERNAL, /16 bytes/],
    ['a length that nothing follows', { body: [endless] }, INTERNAL, /25 bytes/],
    ['a compressed one', { body: [compressed] }, UNIMPLEMENTED, /compressed/],
    ['no protocol buffer', { body: [Buffer.from('000000000212ff', 'hex')] }, INTERNAL, /cannot be read/],
    ['too much', { body: [Buffer.alloc(2 ** 24 + 6)] }, RESOURCE_EXHAUSTED, /larger than 16777216 bytes/],
    ['a time that is none', { headers: { 'grpc-timeout': 'soon' } }, INTERNAL, /grpc-timeout.*soon/],
  ]
  for (const [what, asked, code, message] of cases) {
    const told = await ask(session, asked)
    assert.deepEqual([told.status, told.code, told.data.length], [200, code, 0], what)
    assert.match(told.message, message, what)
  }
  assert.equal((await ask(session, { headers: { 'content-type': 'text/html' } })).status, 415)
  assert.equal(calls, 0)
  assert.equal((await ask(session, {})).code, 0)
  assert.equal(calls, 1)
})

test('a call is aborted by its deadline, its caller, and the loss of the connection', async (t) => {
  const begun: Array<() => void> = []
  const aborted: Array<Promise<unknown>> = []
  const session = await started(t, async (_request, { signal }) => {
    aborted.push(once(signal, 'abort'))
    begun.shift()?.()
    await once(signal, 'abort')
    return {}
  })
  const next = async (): Promise<void> => await new Promise((resolve) => begun.push(resolve))
  // Long enough for the call to begin on a busy machine.
  assert.equal((await ask(session, { headers: { 'grpc-timeout': '1S' } })).code, STATUS_CODE.DEADLINE_EXCEEDED)
  for (const lose of ['stream', 'session'] as const) {
    const isBegun = next()
    const stream = session.request({
      ':method': 'POST',
      ':path': '/containerd.services.snapshots.v1.Snapshots/Stat',
      'content-type': 'application/grpc',
    })
    stream.on('error', () => {})
    stream.end(REQUEST)
    await isBegun
    if (lose === 'stream')
      stream.close(8) // CANCEL
    else session.destroy()
  }
  assert.equal(aborted.length, 3)
  await Promise.all(aborted)
})

test('a request that is refused before it is whole is let go, however long its caller would send', async (t) => {
  const session = await started(t, async () => ({}))
  for (const [headers, body, code] of [
    [{ 'grpc-timeout': '20m' }, REQUEST.subarray(0, 6), STATUS_CODE.DEADLINE_EXCEEDED],
    [{}, Buffer.alloc(2 ** 24 + 6), STATUS_CODE.RESOURCE_EXHAUSTED],
  ] as const) {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/containerd.services.snapshots.v1.Snapshots/Stat',
      'content-type': 'application/grpc',
      ...headers,
    })
    let told = NaN
    stream.on('response', (given) => (told = Number(given['grpc-status'])))
    stream.resume()
    stream.write(body)
    await once(stream, 'close')
    assert.deepEqual([told, stream.rstCode], [code, 0])
  }
})
