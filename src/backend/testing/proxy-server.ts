/** For tests: a forward proxy that does what one does (requests in the absolute form, tunnels), notes what passes, and fails on request. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, request as forward, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'

/** What passed. `url` is as it was asked: whole, or `HOST:PORT` of a tunnel. */
export interface Passed {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
}

/** What happens to a request instead of being passed on. */
export type Interference =
  | { readonly status: number; readonly headers?: Record<string, string> }
  | { readonly cutAfter: number }
  | 'silence'
  | 'reset'

export interface ForwardProxyServer extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** All but pings. */
  readonly passed: Passed[]
  /** Requests for `/ping`, which answers `pingStatus`. */
  pings: number
  pingStatus: number
  /** `X-Dragonfly-Error-Type` of the server's own errors, as the proxy of a Dragonfly peer says it. */
  errorType: string | undefined
  /** Asked for each request; undefined lets it pass. */
  interfere: (request: Passed) => Interference | undefined
}

/** Starts it. `names` are hosts that it knows better than the resolver: `HOST` to `HOST:PORT`. */
export async function startForwardProxy(names: Readonly<Record<string, string>> = {}): Promise<ForwardProxyServer> {
  const sockets = new Set<Socket>()
  const server = createServer((request, response) => {
    if (request.url === '/ping') {
      proxy.pings += 1
      response.writeHead(proxy.pingStatus).end()
    } else pass(proxy, names, request, response)
  })
  server.on('connect', (request, socket: Socket, head: Buffer) => tunnel(proxy, { request, socket, head, sockets }))
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const proxy: ForwardProxyServer = {
    url: `http://127.0.0.1:${port}`,
    port,
    passed: [],
    pings: 0,
    pingStatus: 200,
    errorType: undefined,
    interfere: () => undefined,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
  return proxy
}

function note(proxy: ForwardProxyServer, request: IncomingMessage): Interference | undefined {
  const { method = '', url = '', headers } = request
  const passed = { method, url, headers }
  proxy.passed.push(passed)
  return proxy.interfere(passed)
}

function pass(
  proxy: ForwardProxyServer,
  names: Readonly<Record<string, string>>,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const instead = note(proxy, request)
  if (instead === 'silence') return
  if (instead === 'reset') return void request.socket.destroy()
  if (instead !== undefined && 'status' in instead) {
    response.writeHead(instead.status, instead.headers)
    response.end('the proxy')
    return
  }
  const url = new URL(request.url ?? '')
  const place = new URL(`http://${names[url.host] ?? url.host}`)
  const onward = forward(
    {
      host: place.hostname,
      port: place.port,
      path: url.pathname + url.search,
      method: request.method,
      headers: request.headers,
    },
    (answer) => {
      const { statusCode = 502 } = answer
      const mark =
        proxy.errorType === undefined || statusCode < 400 ? {} : { 'x-dragonfly-error-type': proxy.errorType }
      response.writeHead(statusCode, { ...answer.headers, ...mark })
      let left = instead?.cutAfter ?? Number.POSITIVE_INFINITY
      answer.on('data', (bytes: Buffer) => {
        response.write(bytes.subarray(0, Math.max(0, left)), () => {
          if (left <= 0) request.socket.destroy()
        })
        left -= bytes.length
      })
      answer.on('end', () => response.end())
      answer.on('error', () => response.destroy())
    },
  )
  onward.on('error', () => response.writeHead(502).end())
  request.pipe(onward)
}

function tunnel(
  proxy: ForwardProxyServer,
  parts: {
    readonly request: IncomingMessage
    readonly socket: Socket
    readonly head: Buffer
    readonly sockets: Set<Socket>
  },
): void {
  const { request, socket, head, sockets } = parts
  const instead = note(proxy, request)
  socket.on('error', () => undefined)
  if (instead === 'silence') return
  if (instead === 'reset') return void socket.destroy()
  if (instead !== undefined && 'status' in instead) return void socket.end(`HTTP/1.1 ${instead.status} No\r\n\r\n`)
  const [host = '', port = ''] = (request.url ?? '').split(':')
  const onward = connect(Number(port), host, () => {
    socket.write('HTTP/1.1 200 OK\r\n\r\n')
    onward.write(head)
    onward.pipe(socket).pipe(onward)
  })
  sockets.add(onward)
  onward.on('error', () => socket.destroy())
  onward.on('close', () => sockets.delete(onward))
}
