/** For tests: a gRPC server of unary methods that takes nothing that a strict one would not, and answers wrongly on request. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'

/** What a call gets. `raw` is sent as it is, its frame included. */
export type Reply =
  | { readonly message: Uint8Array }
  | { readonly status: number; readonly text?: string }
  | { readonly raw: Uint8Array; readonly headers?: Record<string, string | number> }
  | 'silence'
  | 'reset'

/** By path, as `/package.Service/Method`; each gets the bytes of the request's message. */
export type Methods = Readonly<Record<string, (message: Buffer) => Reply>>

export interface GrpcServer extends AsyncDisposable {
  readonly port: number
  /** Connections that came. */
  connections: number
  /** Breaches of the protocol by clients. A test asserts that there are none. */
  readonly breaches: string[]
}

export async function startGrpcServer(methods: Methods): Promise<GrpcServer> {
  const sessions = new Set<ServerHttp2Session>()
  const server = createServer()
  server.on('session', (session) => {
    running.connections += 1
    sessions.add(session)
    session.on('close', () => sessions.delete(session))
    session.on('error', () => undefined)
  })
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined)
    void answer(stream, headers, methods).catch((error: Error) => {
      running.breaches.push(error.message)
      if (!stream.destroyed) stream.close()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const running: GrpcServer = {
    port: (server.address() as AddressInfo).port,
    connections: 0,
    breaches: [],
    async [Symbol.asyncDispose]() {
      for (const session of sessions) session.destroy()
      server.close()
      await once(server, 'close')
    },
  }
  return running
}

async function answer(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, methods: Methods): Promise<void> {
  assert.equal(headers[':method'], 'POST')
  assert.equal(headers[':scheme'], 'http')
  assert.equal(headers.te, 'trailers')
  assert.match(headers['content-type'] ?? '', /^application\/grpc(\+proto)?$/)
  assert.match(String(headers['grpc-timeout'] ?? '1S'), /^\d{1,8}[HMSmun]$/)
  const parts: Buffer[] = []
  for await (const part of stream) parts.push(part as Buffer)
  const bytes = Buffer.concat(parts)
  assert.ok(bytes.length >= 5 && bytes[0] === 0 && bytes.readUInt32BE(1) === bytes.length - 5, 'one plain message')
  const path = String(headers[':path'])
  const reply = methods[path]?.(bytes.subarray(5)) ?? { status: 12 }
  if (reply === 'silence') return
  if (reply === 'reset') return stream.session?.destroy()
  const ok = { ':status': 200, 'content-type': 'application/grpc' }
  if ('status' in reply) {
    const status = { 'grpc-status': reply.status, 'grpc-message': reply.text ?? '' }
    return stream.respond({ ...ok, ...status }, { endStream: true })
  }
  stream.respond({ ...ok, ...('raw' in reply ? reply.headers : {}) }, { waitForTrailers: true })
  stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': 0 }))
  stream.end('raw' in reply ? reply.raw : framed(reply.message))
}

export function framed(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}
