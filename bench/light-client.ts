/**
 * A client of gRPC for benchmarks that costs next to nothing: an ordinary one in JavaScript takes longer for a call than a snapshotter, and would be what is measured. It knows one connection and one namespace, compresses nothing,
 * and takes headers of answers for granted. Source: RFC 9113, RFC 7541 and gRPC's "HTTP2 protocol".
 */
import { createConnection, type Socket } from 'node:net'
import {
  create,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import type { Snapshots } from '../src/containerd/index.ts'

type Method = (typeof Snapshots)['method'][keyof (typeof Snapshots)['method']]
/** Encoded messages of an answer, each behind its prefix. */
type Answer = Buffer

interface Waiting {
  readonly path: string
  readonly parts: Buffer[]
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: Error) => void
}

/** Length 3 bytes, type 1, flags 1, stream 4. */
const FRAME = { type: 3, flags: 4, stream: 5, header: 9 } as const
const TYPE = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 8 } as const
const [END_STREAM, END_HEADERS, ACK] = [1, 4, 1]
/** Compressed 1 byte, length 4. */
const PREFIX = 5
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')
/** HEADER_TABLE_SIZE 0, INITIAL_WINDOW_SIZE 2³¹ - 1: servers need not wait for us, however long a list is. */
const SETTINGS = Buffer.from('00010000000000047fffffff', 'hex')
const WINDOW = 0x7fff_ffff
const FIRST_WINDOW = 65_535
/** Of what was received since, when the connection's window is opened again. */
const ACKNOWLEDGED = 2 ** 24
/** Without a byte from the server while calls wait. */
const ANSWER_MS = 60_000

export class LightClient {
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  readonly #headers = new Map<string, Buffer>()
  #written: Buffer[] = []
  #rest: Buffer = Buffer.alloc(0)
  #stream = 1
  #received = 0

  constructor(socket: string) {
    this.#socket = createConnection(socket)
    this.#socket.on('data', (chunk: Buffer) => this.#read(chunk))
    this.#socket.on('error', (error) => this.#fail(error))
    this.#socket.on('close', () => this.#fail(new Error(`${socket} hung up`)))
    this.#socket.setTimeout(ANSWER_MS, () => this.#fail(new Error(`${socket} is silent`)))
    this.#write(PREFACE, frame(TYPE.settings, 0, 0, SETTINGS), windowUpdate(WINDOW - FIRST_WINDOW))
  }

  close(): void {
    this.#socket.destroy()
  }

  /** The bytes of a request, so that making them need not be measured. */
  static encoded<M extends Method>(method: M, message: MessageInitShape<M['input']>): Uint8Array {
    const { input }: DescMethod = method
    return toBinary(input, create(input, message as MessageInitShape<DescMethod['input']>))
  }

  /** Messages of an answer. */
  static *decoded<M extends Method>({ output }: M, answer: Answer): Generator<MessageShape<M['output']>> {
    for (let at = 0; at < answer.length; ) {
      const end = at + PREFIX + answer.readUInt32BE(at + 1)
      yield fromBinary<M['output']>(output, answer.subarray(at + PREFIX, end))
      at = end
    }
  }

  /** Resolves when the whole answer is there. Requests that wait at one time must have less than 64 KiB, as windows for them are not looked at. An answer without a message is an error. */
  async call(method: Method, request: Uint8Array): Promise<Answer> {
    const path = `/${method.parent.typeName}/${method.name}`
    if (this.#socket.destroyed) throw new Error(`${path}: there is no connection any more`)
    const stream = this.#stream
    this.#stream += 2
    const message = Buffer.alloc(PREFIX + request.length)
    message.writeUInt32BE(request.length, 1)
    message.set(request, PREFIX)
    this.#write(
      frame(TYPE.headers, END_HEADERS, stream, this.#headersOf(path)),
      frame(TYPE.data, END_STREAM, stream, message),
    )
    return await new Promise((resolve, reject) => this.#waiting.set(stream, { path, parts: [], resolve, reject }))
  }

  #headersOf(path: string): Buffer {
    const known = this.#headers.get(path)
    if (known !== undefined) return known
    // Indexed: `:method: POST`, `:scheme: http`; then, not to be indexed, `:path` and `:authority`.
    const made = Buffer.concat([
      Buffer.from([0x83, 0x86, 0x04]),
      text(path),
      Buffer.from([0x01]),
      text('localhost'),
      ...[
        ['te', 'trailers'],
        ['content-type', 'application/grpc'],
        ['containerd-namespace', 'bench'],
      ].flatMap(([name = '', value = '']) => [Buffer.from([0x00]), text(name), text(value)]),
    ])
    this.#headers.set(path, made)
    return made
  }

  /** Together with all else that is written in this turn. */
  #write(...frames: readonly Buffer[]): void {
    if (this.#written.length === 0)
      queueMicrotask(() => {
        this.#socket.write(Buffer.concat(this.#written))
        this.#written = []
      })
    this.#written.push(...frames)
  }

  #read(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    let at = 0
    while (bytes.length - at >= FRAME.header) {
      const end = at + FRAME.header + bytes.readUIntBE(at, 3)
      if (end > bytes.length) break
      const [type = 0, flags = 0] = bytes.subarray(at + FRAME.type, at + FRAME.stream)
      this.#take(type, flags, bytes.readUInt32BE(at + FRAME.stream), bytes.subarray(at + FRAME.header, end))
      at = end
    }
    this.#rest = bytes.subarray(at)
  }

  #take(type: number, flags: number, stream: number, body: Buffer): void {
    const waiting = this.#waiting.get(stream)
    if (type === TYPE.settings && flags !== ACK) this.#write(frame(type, ACK, 0, Buffer.alloc(0)))
    else if (type === TYPE.ping && flags !== ACK) this.#write(frame(type, ACK, 0, body))
    else if (type === TYPE.goAway) this.#fail(new Error('the server ended the connection'))
    else if (type === TYPE.data) {
      waiting?.parts.push(body)
      this.#acknowledge(body.length)
    }
    const isReset = type === TYPE.reset
    const isEnd = (type === TYPE.data || type === TYPE.headers) && (flags & END_STREAM) !== 0
    if (waiting === undefined || !(isReset || isEnd)) return
    this.#waiting.delete(stream)
    if (isReset || waiting.parts.length === 0) waiting.reject(new Error(`${waiting.path} failed`))
    else waiting.resolve(Buffer.concat(waiting.parts))
  }

  #acknowledge(bytes: number): void {
    this.#received += bytes
    if (this.#received < ACKNOWLEDGED) return
    this.#write(windowUpdate(this.#received))
    this.#received = 0
  }

  #fail(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }
}

function frame(type: number, flags: number, stream: number, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(FRAME.header + body.length)
  bytes.writeUIntBE(body.length, 0, 3)
  bytes[FRAME.type] = type
  bytes[FRAME.flags] = flags
  bytes.writeUInt32BE(stream, FRAME.stream)
  bytes.set(body, FRAME.header)
  return bytes
}

function windowUpdate(increment: number): Buffer {
  const body = Buffer.alloc(4)
  body.writeUInt32BE(increment)
  return frame(TYPE.windowUpdate, 0, 0, body)
}

/** As it is; shorter than 127 bytes, whose length is one byte. */
function text(of: string): Buffer {
  return Buffer.concat([Buffer.from([of.length]), Buffer.from(of, 'latin1')])
}
