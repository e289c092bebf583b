/** A registry of one blob, spoken byte by byte on a bare socket, so that it can do wrong what no HTTP server would let it. */
import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, type TlsOptions } from 'node:tls'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'

/** One request, as it came. */
export interface Ask {
  readonly path: string
  readonly isToken: boolean
  readonly authorization: string | undefined
  /** First and last byte that are asked for. */
  readonly from: number
  readonly to: number
  readonly socket: Socket
  /** Blob requests since the fault began, from 1. */
  readonly nth: number
  readonly server: RawRegistry
}

/** Addresses beside the registry that it may send us to. */
export interface Elsewhere {
  /** Serves the blob, and wants no login. */
  readonly store: string
  readonly dead: string
  /** Never takes the connection. */
  readonly hung: string
  readonly noTls: string
  readonly untrusted: string
}

const NOWHERE: Elsewhere = { store: '', dead: '', hung: '', noTls: '', untrusted: '' }

/** Answers a request wrongly; false leaves it to the healthy way. */
export type Misbehave = (ask: Ask) => boolean | void

const MAX_HEAD = 65_536

export class RawRegistry {
  readonly blob: Buffer
  /** What it does wrong now. */
  fault: Misbehave | undefined
  /** With a login by tokens: `Bearer good` is wanted, and given at `/token`. */
  wantsToken = false
  elsewhere = NOWHERE
  readonly authorizations: Array<string | undefined> = []
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #asked = 0

  constructor(blob: Buffer, tls?: TlsOptions) {
    this.blob = blob
    const serve = (socket: Socket): void => this.#serve(socket)
    this.#server = tls === undefined ? createServer(serve) : createTlsServer(tls, serve)
    this.#server.on('tlsClientError', () => {})
  }

  async listen(port = 0): Promise<void> {
    this.#server.listen(port, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  begin(fault: Misbehave): void {
    this.#asked = 0
    this.fault = fault
  }

  /** Nobody listens any more; connections are reset. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.resetAndDestroy()
    if (!this.#server.listening) return
    this.#server.close()
    await once(this.#server, 'close')
  }

  /** As a registry that is well. */
  answer({ isToken, authorization, socket, from, to }: Ask): void {
    if (isToken) socket.write(response(200, '{"token":"good","expires_in":300}'))
    else if (this.wantsToken && authorization !== 'Bearer good') socket.write(this.challenge())
    else socket.write(this.part(from, to))
  }

  challenge(): string {
    return response(401, '', [`WWW-Authenticate: Bearer realm="http://127.0.0.1:${this.port}/token",service="x"`])
  }

  /** A right answer to a range. */
  part(from: number, to: number): Buffer {
    const body = this.blob.subarray(from, to + 1)
    return Buffer.concat([Buffer.from(this.head(from, to, [`Content-Length: ${body.length}`])), body])
  }

  head(from: number, to: number, more: readonly string[] = []): string {
    const range = `Content-Range: bytes ${from}-${to}/${this.blob.length}`
    return `${['HTTP/1.1 206 Partial Content', range, ...more].join('\r\n')}\r\n\r\n`
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    socket.on('error', () => {}) // clients that give up
    let head = ''
    socket.on('data', (part: Buffer) => {
      head += part.toString('latin1')
      if (head.length > MAX_HEAD) socket.destroy()
      const end = head.indexOf('\r\n\r\n')
      if (end < 0) return
      const asked = head.slice(0, end)
      head = ''
      this.#asked += 1
      this.#decide(asked, socket)
    })
  }

  #decide(head: string, socket: Socket): void {
    const path = /^\S+ (\S+)/.exec(head)?.[1] ?? ''
    const range = /^range: bytes=(\d+)-(\d+)/im.exec(head)
    const ask: Ask = {
      path,
      isToken: path.startsWith('/token'),
      authorization: /^authorization: (.*)$/im.exec(head)?.[1],
      from: Number(range?.[1] ?? 0),
      to: Math.min(Number(range?.[2] ?? Infinity), this.blob.length - 1),
      socket,
      nth: this.#asked,
      server: this,
    }
    this.authorizations.push(ask.authorization)
    if (this.fault === undefined || this.fault(ask) === false) this.answer(ask)
  }
}

/** An answer with its length. */
export function response(status: number, body: string, headers: readonly string[] = []): string {
  return `${[`HTTP/1.1 ${status} Status`, ...headers, `Content-Length: ${Buffer.byteLength(body)}`].join('\r\n')}\r\n\r\n${body}`
}
