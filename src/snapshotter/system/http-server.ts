import { lstatSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { listen } from '../../containerd/index.ts'
import { SnapshotterError } from '../errors.ts'
import { parseListenAddress } from '../settings/index.ts'

/** How a request is answered; what it throws becomes a 500 without words. */
export type Handle = (request: IncomingMessage, response: ServerResponse, signal: AbortSignal) => Promise<void>

export interface RunningHttp {
  /** Of TCP: the port that the system chose for 0. */
  readonly port: number
  /** Hangs up on everybody. */
  close(): Promise<void>
}

const MAX_CONNECTIONS = 256
const HEADERS_MS = 10_000
const MAX_BODY_BYTES = 4 << 20

function serverOf(handle: Handle): Server {
  const server = createServer({ headersTimeout: HEADERS_MS, maxHeaderSize: 16 << 10 }, (request, response) => {
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    handle(request, response, gone.signal).catch(() => {
      if (!response.headersSent) response.writeHead(500)
      response.end()
    })
  })
  server.maxConnections = MAX_CONNECTIONS
  server.on('clientError', (_error, socket) => void socket.destroy())
  return server
}

/** HTTP on a Unix socket for its owner alone. Throws ContainerdError. */
export async function serveUnix(at: { path: string; uid: number; gid: number }, handle: Handle): Promise<RunningHttp> {
  const server = serverOf(handle)
  const sockets = new Set<Socket>()
  const listener = await listen({ ...at, mode: 0o600 }, (socket) => {
    if (sockets.size >= MAX_CONNECTIONS) socket.destroy()
    else {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
      server.emit('connection', socket)
    }
  })
  const { ino } = lstatSync(at.path)
  return {
    port: 0,
    close: async () => {
      // A successor's socket stays.
      if (lstatSync(at.path, { throwIfNoEntry: false })?.ino === ino) rmSync(at.path, { force: true })
      const closed = new Promise<void>((resolve) => listener.close(() => resolve()))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** HTTP on a TCP address as configurations have it. Throws SnapshotterError 'BAD_CONFIG', naming the key. */
export async function serveTcp(address: string, key: string, handle: Handle): Promise<RunningHttp> {
  const server = serverOf(handle)
  const { host, port } = parseListenAddress(address) ?? { host: undefined, port: 0 }
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'another program listens there' : (error.code ?? error.message)
      reject(
        new SnapshotterError('BAD_CONFIG', `cannot use "${key}": cannot listen on ${address}: ${why}`, {
          cause: error,
        }),
      )
    })
    server.listen(port, host, resolve)
  })
  const told = server.address()
  return {
    port: typeof told === 'object' && told !== null ? told.port : port,
    close: async () => {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

/** The body of a request; undefined when it is too long, and then the connection is of no more use. */
export async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > MAX_BODY_BYTES) return undefined
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}

export function sendText(response: ServerResponse, status: number, type: string, text: string): void {
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(text) })
  response.end(text)
}
