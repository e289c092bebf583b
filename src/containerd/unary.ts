/**
 * Unary calls, answered on the streams of HTTP/2 themselves: grpc-js, which has whatever gRPC has, takes longer for a call than a snapshotter does. Streams of messages, and services that are passed on, stay with it, as does
 * every connection. Source: gRPC's "PROTOCOL-HTTP2".
 */
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import type { Server } from '@grpc/grpc-js'
import type { CallsUnderWay, ServedCall } from './call.ts'
import { ContainerdError, type StatusCode } from './errors.ts'
import { MAX_MESSAGE_BYTES } from './methods.ts'
import { type Status, statusOf } from './status.ts'

export interface UnaryMethod {
  readonly decode: (bytes: Buffer) => object
  readonly encode: (message: object) => Buffer
  readonly handle: (request: object, call: ServedCall) => Promise<object>
}

/** What all calls share. */
interface Serving {
  readonly calls: CallsUnderWay
  /** Calls wait for it; when it fails the server is stopped, and they are never answered. */
  readonly ready: Promise<void> | undefined
}

type StreamHandler = (interceptors: unknown, stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void

const HEADERS = { ':status': 200, 'content-type': 'application/grpc+proto' } as const
const OK = { 'grpc-status': '0' } as const
/** Of a message: whether it is compressed, 1 byte, and its length, 4 bytes. */
const PREFIX = { compressed: 0, length: 1, size: 1 + 4 } as const
const TIMEOUT = /^(\d{1,8})([HMSmun])$/
const UNIT_MS = new Map([
  ['H', 3_600_000],
  ['M', 60_000],
  ['S', 1000],
  ['m', 1],
  ['u', 1e-3],
  ['n', 1e-6],
])
/** Longer ones would be none. */
const MAX_TIMER_MS = 2 ** 31 - 1

/**
 * Answers calls of these methods, by their paths, on every connection that comes to the server afterwards. grpc-js has no door for that; this stands before what it does with a new stream.
 */
export function serveUnary(server: Server, methods: ReadonlyMap<string, UnaryMethod>, serving: Serving): void {
  const inner = server as unknown as { _streamHandler?: StreamHandler }
  const others = inner._streamHandler
  if (others === undefined)
    throw new ContainerdError(
      'INTERNAL',
      'cannot serve calls: this release of @grpc/grpc-js takes new streams otherwise',
    )
  inner._streamHandler = (interceptors, stream, headers) => {
    const method = methods.get(String(headers[':path']))
    // Whatever does not speak gRPC is told so there.
    if (method === undefined || headers['content-type']?.startsWith('application/grpc') !== true)
      others.call(server, interceptors, stream, headers)
    else new UnaryCall({ stream, headers, method, serving }).start()
  }
}

class UnaryCall {
  readonly #stream: ServerHttp2Stream
  readonly #headers: IncomingHttpHeaders
  readonly #method: UnaryMethod
  readonly #serving: Serving
  readonly #parts: Buffer[] = []
  #received = 0
  #abort: AbortController | undefined
  #timer: NodeJS.Timeout | undefined
  #isOver = false

  constructor(of: {
    readonly stream: ServerHttp2Stream
    readonly headers: IncomingHttpHeaders
    readonly method: UnaryMethod
    readonly serving: Serving
  }) {
    this.#stream = of.stream
    this.#headers = of.headers
    this.#method = of.method
    this.#serving = of.serving
  }

  start(): void {
    const stream = this.#stream
    stream.on('error', () => {}) // it closes then
    stream.once('close', () => this.#gone())
    stream.on('data', (chunk: Buffer) => this.#take(chunk))
    stream.once('end', () => void this.#run())
    this.#setDeadline(this.#headers['grpc-timeout'])
  }

  #setDeadline(text: string | string[] | undefined): void {
    if (text === undefined) return
    const [, count, unit = ''] = TIMEOUT.exec(String(text)) ?? []
    if (count === undefined)
      return this.#refuse('INTERNAL', `the call has a grpc-timeout that is none: ${String(text)}`)
    const ms = Number(count) * (UNIT_MS.get(unit) ?? 0)
    this.#timer = setTimeout(
      () => {
        const abort = this.#abort
        this.#refuse('DEADLINE_EXCEEDED', 'the deadline of the call has passed')
        abort?.abort()
      },
      Math.min(ms, MAX_TIMER_MS),
    )
  }

  /** What is too long is not kept. */
  #take(chunk: Buffer): void {
    if (this.#isOver) return
    this.#received += chunk.length
    if (this.#received <= PREFIX.size + MAX_MESSAGE_BYTES) this.#parts.push(chunk)
    else this.#refuse('RESOURCE_EXHAUSTED', `the request is larger than ${MAX_MESSAGE_BYTES} bytes`)
  }

  async #run(): Promise<void> {
    const { calls, ready } = this.#serving
    if (ready !== undefined && !(await isResolved(ready))) return
    if (this.#isOver) return
    const abort = calls.begin()
    this.#abort = abort
    try {
      const request = this.#request()
      const namespace = this.#headers['containerd-namespace']
      const call = { signal: abort.signal, namespace: typeof namespace === 'string' ? namespace : '' }
      this.#answer(this.#method.encode(await this.#method.handle(request, call)))
    } catch (error) {
      this.#fail(statusOf(error))
    } finally {
      calls.end(abort)
    }
  }

  #request(): object {
    const [first] = this.#parts
    const bytes = first !== undefined && this.#parts.length === 1 ? first : Buffer.concat(this.#parts)
    this.#parts.length = 0
    const length = bytes.length < PREFIX.size ? -1 : bytes.readUInt32BE(PREFIX.length)
    if (length !== bytes.length - PREFIX.size)
      throw new ContainerdError('INTERNAL', `the call has not one whole message, but ${bytes.length} bytes`)
    if (bytes[PREFIX.compressed] !== 0)
      throw new ContainerdError('UNIMPLEMENTED', 'the request is compressed, which this server does not know')
    try {
      return this.#method.decode(bytes.subarray(PREFIX.size))
    } catch (cause) {
      throw new ContainerdError('INTERNAL', `the request cannot be read: ${String(cause)}`, { cause })
    }
  }

  #answer(message: Buffer): void {
    if (this.#isOver) return
    if (message.length > MAX_MESSAGE_BYTES)
      return this.#refuse('RESOURCE_EXHAUSTED', `the answer is larger than ${MAX_MESSAGE_BYTES} bytes`)
    this.#end()
    const framed = Buffer.allocUnsafe(PREFIX.size + message.length)
    framed[PREFIX.compressed] = 0
    framed.writeUInt32BE(message.length, PREFIX.length)
    message.copy(framed, PREFIX.size)
    const stream = this.#stream
    if (isGone(stream)) return
    stream.respond(HEADERS, { waitForTrailers: true })
    stream.once('wantTrailers', () => {
      if (!isGone(stream)) stream.sendTrailers(OK)
    })
    stream.end(framed)
  }

  #refuse(code: StatusCode, message: string): void {
    this.#fail(statusOf(new ContainerdError(code, message)))
  }

  #fail({ code, details }: Status): void {
    if (this.#isOver) return
    this.#end()
    this.#parts.length = 0
    const stream = this.#stream
    if (isGone(stream)) return
    const status = { 'grpc-status': String(code), 'grpc-message': encodeURI(details) }
    stream.respond({ ...HEADERS, ...status }, { endStream: true })
    // Whoever still sends the request need not go on; the stream would stay until then.
    if (!stream.readableEnded) stream.close(constants.NGHTTP2_NO_ERROR)
  }

  /** The caller gave up, or the connection was lost; or all was said. */
  #gone(): void {
    if (this.#isOver) return
    this.#end()
    this.#parts.length = 0
    this.#abort?.abort()
  }

  #end(): void {
    this.#isOver = true
    clearTimeout(this.#timer)
  }
}

/** It closes in a moment, and nothing can be said on it any more. */
function isGone(stream: ServerHttp2Stream): boolean {
  return stream.destroyed || stream.closed
}

async function isResolved(promise: Promise<void>): Promise<boolean> {
  return await promise.then(
    () => true,
    () => false,
  )
}
