import { chmodSync, lstatSync, rmSync } from 'node:fs'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Daemon } from '../daemon.ts'
import { DaemonError, messageOf } from '../errors.ts'
import { type Answer, BAD_REQUEST, failureAnswer, NO_ROUTE, refusal } from './answer.ts'
import type { Log } from '../log.ts'
import type { Route } from './routes.ts'

/** What the server itself needs of a daemon. */
export interface Served {
  readonly options: { readonly log: Log }
}

export interface ApiServerOptions<D extends Served> {
  readonly socketPath: string
  readonly daemon: D
  readonly routes: ReadonlyArray<Route<D>>
  /** Asked to end the process, after the answer is out. */
  readonly onExit: () => void
}

/** Limits of upstream's server. */
const MAX_BODY_BYTES = 51_200
const MAX_CONNECTIONS = 256
const MAX_HEADER_BYTES = 16 << 10
/** `sun_path` has 108 bytes, the last one NUL. */
const MAX_SOCKET_PATH_BYTES = 107
const CONNECT_DEADLINE_MS = 2_000

/**
 * The administration API on a Unix socket that only its owner may use. Idle connections stay open: clients take a hang-up for the death of the daemon.
 */
export class ApiServer<D extends Served = Daemon> {
  readonly #options: ApiServerOptions<D>
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(options: ApiServerOptions<D>) {
    this.#options = options
    const limits = {
      keepAliveTimeout: 0,
      requestTimeout: 0,
      headersTimeout: 0,
      maxHeaderSize: MAX_HEADER_BYTES,
      connectionsCheckingInterval: 2 ** 30,
    }
    // Loaded here, while a daemon's first thread starts; as an ES module it would load a web client too, which takes longer than all the rest.
    this.#server = process.getBuiltinModule('node:http').createServer(limits, (request, response) => {
      // a client that hung up in mid-body, or a path that is no path
      this.#serve(request, response).catch(() => response.destroy())
    })
    this.#server.on('connection', (socket) => this.#admit(socket))
    this.#server.on('clientError', (error, socket) => {
      if (socket.writable)
        socket.end(rawRefusal(400, `${error.message}.\nAll previous unanswered requests will be dropped.`))
      else socket.destroy()
    })
  }

  /** Listens; a socket that a dead daemon left is replaced: ask {@link checkSocket} first. Throws DaemonError 'IO'. */
  static async listen<D extends Served>(options: ApiServerOptions<D>): Promise<ApiServer<D>> {
    const api = new ApiServer(options)
    const { socketPath } = options
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    api.#server.once('error', reject)
    rmSync(socketPath, { force: true })
    const mask = process.umask(0o177)
    try {
      api.#server.listen(socketPath, resolve) // binds before it returns, hence with this mask
    } finally {
      process.umask(mask)
    }
    try {
      await promise
    } catch (error) {
      throw new DaemonError(
        'IO',
        `cannot listen at ${socketPath}: ${messageOf(error)}; its folder must exist and be writable`,
        { cause: error },
      )
    }
    chmodSync(socketPath, 0o600)
    return api
  }

  /** Hangs up on everybody and removes the socket. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    for (const socket of this.#sockets) socket.destroy()
    await closed
    rmSync(this.#options.socketPath, { force: true })
  }

  #admit(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    if (this.#sockets.size > MAX_CONNECTIONS) socket.end(rawRefusal(503, 'Too many open connections'))
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let isExit = false
    const url = new URL(request.url ?? '/', 'http://daemon')
    const body = await readBody(request)
    if (typeof body === 'number') {
      response.shouldKeepAlive = false
      response.socket?.end(
        rawRefusal(
          400,
          `Request payload with size ${body} is larger than the limit of ${MAX_BODY_BYTES} allowed by server.\nAll previous unanswered requests will be dropped.`,
        ),
      )
      return
    }
    const answer = await this.#answer(request.method ?? '', url, body, () => {
      isExit = true
    })
    send(response, answer, () => {
      if (isExit) this.#options.onExit()
    })
  }

  async #answer(method: string, url: URL, body: string, exit: () => void): Promise<Answer> {
    const routes = this.#options.routes.filter(({ path }) => path === url.pathname)
    const [first] = routes
    if (first === undefined) return NO_ROUTE
    const { searchParams: query } = url
    if (first.needs !== undefined && !query.has(first.needs))
      return refusal(400, `QueryString("'${first.needs}' should be specified in query string")`)
    const route: Route<D> | undefined = routes.find((candidate) => candidate.method === method)
    if (route === undefined || (route.body === 'none') !== (body === '')) return BAD_REQUEST
    const { daemon } = this.#options
    try {
      return await route.handle({ daemon, query, body, exit })
    } catch (error) {
      daemon.options.log.warn(`${method} ${url.pathname}: ${messageOf(error)}`)
      return failureAnswer(error, route.wrapper)
    }
  }
}

/**
 * Is the path free for a new socket? One that nobody answers is. Throws DaemonError 'BUSY' for a living daemon's, 'BAD_CONFIG' for a file
 * that is no socket.
 */
export async function checkSocket(path: string): Promise<void> {
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES)
    throw new DaemonError(
      'BAD_CONFIG',
      `cannot listen at ${path}: the path has ${Buffer.byteLength(path)} bytes, and a socket's has at most ${MAX_SOCKET_PATH_BYTES}; give a shorter --apisock`,
    )
  const info = lstatSync(path, { throwIfNoEntry: false })
  if (info === undefined) return
  if (!info.isSocket())
    throw new DaemonError(
      'BAD_CONFIG',
      `cannot listen at ${path}: there is a file that is no socket; remove it or give another --apisock`,
    )
  const socket = connect(path)
  const isAlive = await new Promise<boolean>((resolve) => {
    socket.setTimeout(CONNECT_DEADLINE_MS, () => resolve(true))
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false)) // ECONNREFUSED: its owner is dead
  })
  socket.destroy()
  if (isAlive)
    throw new DaemonError(
      'BUSY',
      `cannot listen at ${path}: another daemon answers there; stop it or give another --apisock`,
    )
}

/** The whole body, or, when it is too long, its length as far as known. */
async function readBody(request: IncomingMessage): Promise<string | number> {
  const told = Number(request.headers['content-length'] ?? 0)
  if (told > MAX_BODY_BYTES) return told
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > MAX_BODY_BYTES) return length
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}

/** Like upstream: a status line without words, and no header that is not needed. */
function send(response: ServerResponse, answer: Answer, onSent: () => void): void {
  response.sendDate = false
  response.statusCode = answer.status
  response.statusMessage = ''
  response.setHeader('Server', 'Nydus API')
  response.setHeader('Connection', 'keep-alive')
  const { type, content } = answer.text ?? {
    type: 'application/json',
    content: answer.body === undefined ? '' : JSON.stringify(answer.body),
  }
  if (content === '') {
    response.end(onSent)
    return
  }
  response.setHeader('Content-Type', type)
  response.setHeader('Content-Length', Buffer.byteLength(content))
  response.end(content, onSent)
}

/** What upstream's server says before a request reaches the API. */
function rawRefusal(status: number, text: string): string {
  const body = `{ "error": "${text}" }`
  return `HTTP/1.1 ${status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
}
