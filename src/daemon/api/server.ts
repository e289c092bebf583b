import { chmodSync, lstatSync, rmSync } from 'node:fs'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Daemon } from '../daemon.ts'
import { DaemonError, messageOf } from '../errors.ts'
import { type Answer, BAD_REQUEST, failureAnswer, NO_ROUTE, refusal } from './answer.ts'
import type { Log } from '../log.ts'
import type { Route } from './routes.ts'
import { protocolFault, rawRefusal, UNSUPPORTED_VERSION } from './protocol.ts'

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
/** Requests of one client that wait for their turn; nobody has a use for more. */
const MAX_WAITING = 256
/** How long what is left of a refused body is taken and thrown away, so that its sender gets to read why. */
const DRAIN_MS = 2_000
/** `sun_path` has 108 bytes, the last one NUL. */
const MAX_SOCKET_PATH_BYTES = 107
const CONNECT_DEADLINE_MS = 2_000

/**
 * The administration API on a Unix socket that only its owner may use. Idle connections stay open: clients take a hang-up for the death of the daemon.
 */
export class ApiServer<D extends Served = Daemon> {
  readonly #options: ApiServerOptions<D>
  readonly #server: Server
  /** Every connection, and its requests that are not answered yet. */
  readonly #clients = new Map<Socket, Client>()
  #inode = 0n

  private constructor(options: ApiServerOptions<D>) {
    this.#options = options
    const limits = {
      keepAliveTimeout: 0,
      requestTimeout: 0,
      headersTimeout: 0,
      maxHeaderSize: MAX_HEADER_BYTES,
      connectionsCheckingInterval: 2 ** 30,
      requireHostHeader: false, // upstream's server asks for none
    }
    // Loaded here, while a daemon's first thread starts; as an ES module it would load a web client too, which takes longer than all the rest.
    this.#server = process
      .getBuiltinModule('node:http')
      .createServer(limits, (request, response) => this.#take(request, response))
    // a client that has said all still gets its answers
    Object.assign(this.#server, { httpAllowHalfOpen: true })
    this.#server.on('connection', (socket) => this.#admit(socket))
    this.#server.on('clientError', (error, socket) => {
      if (socket.writable) socket.end(protocolFault(error))
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
    api.#inode = lstatSync(socketPath, { bigint: true }).ino
    return api
  }

  /** Hangs up on everybody and removes the socket; not another daemon's, who took its place. */
  async close(): Promise<void> {
    for (const socket of this.#clients.keys()) socket.destroy()
    // Closing would remove whatever has the name now; and nobody comes to a socket without a name.
    if (!this.#hasName()) return void this.#server.unref()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
    rmSync(this.#options.socketPath, { force: true })
  }

  #hasName(): boolean {
    return lstatSync(this.#options.socketPath, { bigint: true, throwIfNoEntry: false })?.ino === this.#inode
  }

  #admit(socket: Socket): void {
    this.#clients.set(socket, { waiting: 0, turn: Promise.resolve() })
    socket.on('close', () => this.#clients.delete(socket))
    if (this.#clients.size > MAX_CONNECTIONS) socket.end(rawRefusal(503, 'Too many open connections'))
  }

  /** Requests of one connection are handled one after the other: a client may send the next one before it has the answer. */
  #take(request: IncomingMessage, response: ServerResponse): void {
    const client = this.#clients.get(request.socket)
    if (client === undefined || client.waiting >= MAX_WAITING) return void response.destroy()
    client.waiting++
    client.turn = client.turn
      .then(() => this.#serve(request, response))
      .catch(() => void response.destroy()) // a client that hung up in mid-body
      .finally(() => client.waiting--)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let isExit = false
    if (request.httpVersionMajor !== 1) return hangUp(request, UNSUPPORTED_VERSION)
    const body = await readBody(request)
    if (typeof body === 'number') return hangUp(request, rawRefusal(400, tooLarge(body)))
    const url = URL.parse(request.url ?? '/', 'http://daemon')
    const exit = (): void => void (isExit = true)
    const answer = url === null ? NO_ROUTE : await this.#answer(request.method ?? '', url, body, exit)
    if (isExit) whenOver(response, this.#options.onExit)
    send(response, answer)
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
  const isAlive = await isAnswered(path)
  if (isAlive)
    throw new DaemonError(
      'BUSY',
      `cannot listen at ${path}: another daemon answers there; stop it or give another --apisock`,
    )
}

/** Does somebody listen at a socket? */
export async function isAnswered(path: string): Promise<boolean> {
  const socket = connect(path)
  const isAlive = await new Promise<boolean>((resolve) => {
    socket.setTimeout(CONNECT_DEADLINE_MS, () => resolve(true))
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false)) // ECONNREFUSED: its owner is dead
  })
  socket.destroy()
  return isAlive
}

interface Client {
  waiting: number
  turn: Promise<void>
}

/** Once, when the answer is out or nobody is there to get it. */
function whenOver(response: ServerResponse, act: () => void): void {
  if (response.closed || response.destroyed) act()
  else response.once('close', act)
}

/** Refuses a request in mid-stream: the connection cannot be used any more. */
function hangUp(request: IncomingMessage, refused: string): void {
  const { socket } = request
  socket.end(refused)
  request.resume()
  setTimeout(() => socket.destroy(), DRAIN_MS).unref()
}

function tooLarge(bytes: number): string {
  return `Request payload with size ${bytes} is larger than the limit of ${MAX_BODY_BYTES} allowed by server.\nAll previous unanswered requests will be dropped.`
}

/** The whole body, or, when it is too long, its length as far as known. */
async function readBody(request: IncomingMessage): Promise<string | number> {
  const told = Number(request.headers['content-length'] ?? 0)
  if (told > MAX_BODY_BYTES) return told
  const parts: Buffer[] = []
  let length = 0
  // a connection that is to carry an answer outlives the loop
  for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    length += part.length
    if (length > MAX_BODY_BYTES) return length
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}

/** Like upstream: a status line without words, and no header that is not needed. */
function send(response: ServerResponse, answer: Answer): void {
  response.sendDate = false
  const { type, content } = answer.text ?? {
    type: 'application/json',
    content: answer.body === undefined ? '' : JSON.stringify(answer.body),
  }
  response.writeHead(answer.status, '', {
    Server: 'Nydus API',
    Connection: 'keep-alive',
    ...(content === '' ? {} : { 'Content-Type': type, 'Content-Length': Buffer.byteLength(content) }),
  })
  response.end(content)
}
