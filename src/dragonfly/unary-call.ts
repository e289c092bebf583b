/** One gRPC call on a connection of its own, in cleartext. Source: gRPC's "PROTOCOL-HTTP2". */
import type { ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2'
import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { DragonflyError, printable } from './errors.ts'

export interface CallOptions {
  /** For the connection and the answer together. */
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

export interface Answered<O extends DescMessage> {
  readonly message: MessageShape<O>
  /** The address that was connected to, as the socket knows it. */
  readonly remoteAddress: string
}

/** Of a message: whether it is compressed, 1 byte, and its length, 4 bytes. */
const PREFIX = { compressed: 0, length: 1, size: 1 + 4 } as const
/** Of an answer: what gRPC's implementations take when nobody says otherwise. */
export const MAX_ANSWER_BYTES = 4 * 1024 * 1024
const MAX_HEADER_BYTES = 16 * 1024
const OK = '0'

/** Calls a method of the server at `http://HOST:PORT`. Throws DragonflyError. */
export async function unaryCall<I extends DescMessage, O extends DescMessage>(
  origin: string,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  { timeoutMs, signal }: CallOptions,
): Promise<Answered<O>> {
  const what = `cannot ask ${origin} for ${method.name}`
  const { connect } = await import('node:http2') // only who has a scheduler pays
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(), timeoutMs)
  const either = AbortSignal.any([signal, late.signal])
  let onAbort = (): void => undefined
  const session = connect(origin, { settings: { enablePush: false, maxHeaderListSize: MAX_HEADER_BYTES } })
  try {
    const bytes = await new Promise<Buffer>((resolve, reject) => {
      onAbort = () => reject(either.reason as Error)
      either.addEventListener('abort', onAbort)
      if (either.aborted) reject(either.reason as Error)
      session.on('error', reject)
      session.once('close', () => reject(new DragonflyError('UNREACHABLE', `${what}: the connection was closed`)))
      const stream = session.request({
        ':method': 'POST',
        ':path': `/${method.parent.typeName}/${method.name}`,
        te: 'trailers',
        'content-type': 'application/grpc',
        'grpc-timeout': `${timeoutMs}m`,
        'user-agent': 'nydusd',
      })
      stream.end(framed(toBinary(method.input, create(method.input, request))))
      new Answer(what, stream).bytes.then(resolve, reject)
    })
    return { message: decoded(what, method.output, bytes), remoteAddress: session.socket?.remoteAddress ?? '' }
  } catch (error) {
    if (error instanceof DragonflyError) throw error
    if (signal.aborted) throw new DragonflyError('CLOSED', `${what}: nobody waits any more`, { cause: error })
    if (late.signal.aborted)
      throw new DragonflyError('TIMEOUT', `${what}: no answer in ${timeoutMs} ms`, { cause: error })
    throw new DragonflyError('UNREACHABLE', `${what}: ${(error as Error).message}`, { cause: error })
  } finally {
    clearTimeout(timer)
    either.removeEventListener('abort', onAbort)
    session.on('error', () => undefined) // it has ended, as this call has
    session.destroy()
  }
}

function framed(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(PREFIX.size)
  prefix.writeUInt32BE(message.length, PREFIX.length)
  return Buffer.concat([prefix, message])
}

function decoded<O extends DescMessage>(what: string, schema: O, bytes: Buffer): MessageShape<O> {
  try {
    return fromBinary(schema, bytes)
  } catch (cause) {
    throw new DragonflyError('BAD_RESPONSE', `${what}: the answer is no ${schema.typeName}`, { cause })
  }
}

/** The one message of a stream that ends well. */
class Answer {
  readonly bytes: Promise<Buffer>
  readonly #what: string
  readonly #parts: Buffer[] = []
  #size = 0
  #trailers: IncomingHttpHeaders = {}

  constructor(what: string, stream: ClientHttp2Stream) {
    this.#what = what
    this.bytes = new Promise((resolve, reject) => {
      const attempt = (act: () => void): void => {
        try {
          act()
        } catch (error) {
          reject(error)
        }
      }
      stream.once('response', (headers) => attempt(() => this.#begin(headers)))
      stream.once('trailers', (trailers) => {
        this.#trailers = trailers
      })
      stream.on('data', (part: Buffer) => attempt(() => this.#take(part)))
      stream.once('end', () => attempt(() => resolve(this.#message())))
      stream.on('error', reject)
      stream.once('close', () => reject(new DragonflyError('UNREACHABLE', `${what}: the answer was cut`)))
    })
  }

  #begin(headers: IncomingHttpHeaders & { readonly ':status'?: number }): void {
    const { ':status': status, 'content-type': type = '' } = headers
    if (status !== 200 || !type.startsWith('application/grpc'))
      throw new DragonflyError('BAD_RESPONSE', `${this.#what}: status ${status}, no gRPC is spoken there`)
    // An answer that is only a status has it here.
    this.#trailers = headers
  }

  #take(part: Buffer): void {
    this.#size += part.length
    if (this.#size > PREFIX.size + MAX_ANSWER_BYTES)
      throw new DragonflyError('BAD_RESPONSE', `${this.#what}: the answer is larger than ${MAX_ANSWER_BYTES} bytes`)
    this.#parts.push(part)
  }

  #message(): Buffer {
    const status = this.#trailers['grpc-status']
    if (status !== OK) {
      const detail = printable(String(this.#trailers['grpc-message'] ?? ''))
      throw new DragonflyError('REFUSED', `${this.#what}: gRPC status ${printable(String(status))} ${detail}`.trimEnd())
    }
    const bytes = Buffer.concat(this.#parts)
    const length = bytes.length < PREFIX.size ? -1 : bytes.readUInt32BE(PREFIX.length)
    if (length !== bytes.length - PREFIX.size || bytes[PREFIX.compressed] !== 0)
      throw new DragonflyError('BAD_RESPONSE', `${this.#what}: the answer has not one plain message`)
    return bytes.subarray(PREFIX.size)
  }
}
