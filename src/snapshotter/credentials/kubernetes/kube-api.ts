import { type IncomingMessage, request as requestHttp, type RequestOptions } from 'node:http'
import { request as requestHttps } from 'node:https'
import { getCACertificates } from 'node:tls'
import { SnapshotterError } from '../../errors.ts'
import type { KubeAccess } from './kube-config.ts'
import { contentOf, type KubeLogin } from './kube-login.ts'
import { deadlineSignal } from '../../../kernel/index.ts'

/** The API server refused a request, or did not answer; `status` is 0 then. The message has the server's reason. */
export class KubeApiError extends SnapshotterError {
  readonly status: number

  constructor(status: number, message: string, options?: ErrorOptions) {
    super('UNAVAILABLE', message, options)
    this.status = status
  }
}

const ANSWER_TIMEOUT_MS = 30_000
const MAX_DOCUMENT_BYTES = 128 << 20
/** A secret has at most 1 MiB, a third more in base64, and what is told about it. */
const MAX_LINE_BYTES = 8 << 20
const MAX_ERROR_BYTES = 65_536
const KEEP_ALIVE_MS = 30_000

/** Requests to the API server, each on a connection of its own, with certificates and tokens as they are then. */
export class KubeApi {
  readonly #access: KubeAccess
  readonly #login: KubeLogin

  constructor(access: KubeAccess, login: KubeLogin) {
    this.#access = access
    this.#login = login
  }

  get host(): string {
    return this.#access.server.host
  }

  /** One document. Throws KubeApiError; SnapshotterError when we cannot say who we are. */
  async get(path: string, signal: AbortSignal): Promise<unknown> {
    const limited = AbortSignal.any([signal, deadlineSignal(ANSWER_TIMEOUT_MS)])
    const answer = await this.#send(path, limited)
    const parts: Uint8Array[] = []
    let size = 0
    for await (const part of this.#body(answer)) {
      size += part.length
      if (size > MAX_DOCUMENT_BYTES)
        throw this.#failed(path, 0, `the answer is larger than ${MAX_DOCUMENT_BYTES} bytes`)
      parts.push(part)
    }
    return this.#parse(path, Buffer.concat(parts))
  }

  /** The documents of an answer that has one a line and no end of its own. */
  async *lines(path: string, signal: AbortSignal): AsyncGenerator<unknown, void, undefined> {
    const answer = await this.#send(path, signal)
    let parts: Uint8Array[] = []
    let size = 0
    for await (const part of this.#body(answer)) {
      let start = 0
      for (let end = part.indexOf(0x0a); end >= 0; end = part.indexOf(0x0a, start)) {
        parts.push(part.subarray(start, end))
        const line = Buffer.concat(parts)
        start = end + 1
        parts = []
        size = 0
        if (line.length > 0) yield this.#parse(path, line)
      }
      parts.push(part.subarray(start))
      size += part.length - start
      if (size > MAX_LINE_BYTES) throw this.#failed(path, 0, `an event is larger than ${MAX_LINE_BYTES} bytes`)
    }
  }

  async #send(path: string, signal: AbortSignal): Promise<IncomingMessage> {
    const options = await this.#options(path, signal)
    const { server } = this.#access
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      const send = server.protocol === 'https:' ? requestHttps : requestHttp
      const request = send(options, resolve)
      const timer = setTimeout(
        () => request.destroy(new Error(`no answer within ${ANSWER_TIMEOUT_MS} ms`)),
        ANSWER_TIMEOUT_MS,
      )
      request.once('response', () => clearTimeout(timer))
      request.once('socket', (socket) => socket.setKeepAlive(true, KEEP_ALIVE_MS))
      request.on('error', (error) => {
        clearTimeout(timer)
        reject(this.#failed(path, 0, error.message, error))
      })
      request.end()
    })
    const status = answer.statusCode ?? 0
    if (status === 200) return answer
    if (status === 401) this.#login.refused()
    throw this.#failed(path, status, await reasonOf(answer))
  }

  async #options(path: string, signal: AbortSignal): Promise<RequestOptions> {
    const { server, ca, skipVerify, serverName } = this.#access
    const { authorization, cert, key } = await this.#login.identity(signal)
    const trusted = ca && (await contentOf(ca))
    const tls = {
      rejectUnauthorized: !skipVerify,
      ...(trusted === undefined ? { ca: getCACertificates('default') } : { ca: trusted }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(serverName === undefined ? {} : { servername: serverName }),
    }
    return {
      hostname: server.hostname.replace(/^\[|\]$/g, ''),
      port: server.port,
      path: `${server.pathname.replace(/\/+$/, '')}${path}`,
      headers: {
        accept: 'application/json',
        'user-agent': 'nydus-node',
        ...(authorization === undefined ? {} : { authorization }),
      },
      agent: false,
      signal,
      ...(server.protocol === 'https:' ? tls : {}),
    }
  }

  async *#body(answer: IncomingMessage): AsyncGenerator<Uint8Array> {
    try {
      yield* answer
    } catch (error) {
      throw this.#failed('', 0, `the answer broke off: ${(error as Error).message}`, error)
    }
  }

  #parse(path: string, bytes: Uint8Array): unknown {
    try {
      return JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'))
    } catch {
      throw this.#failed(path, 0, 'the answer is not JSON') // its text holds secrets
    }
  }

  #failed(path: string, status: number, why: string, cause?: unknown): KubeApiError {
    const where = `${this.#access.server.origin}${path.split('?', 1)[0]}`
    return new KubeApiError(status, `Kubernetes API ${where}: ${status === 0 ? '' : `${status} `}${why}`, { cause })
  }
}

/** What the server's `Status` says; it names users and resources, never secrets. */
async function reasonOf(answer: IncomingMessage): Promise<string> {
  const parts: Uint8Array[] = []
  let size = 0
  try {
    for await (const part of answer as AsyncIterable<Uint8Array>) {
      parts.push(part)
      size += part.length
      if (size > MAX_ERROR_BYTES) break
    }
    const { kind, message } = JSON.parse(Buffer.concat(parts).toString('utf8')) as { kind?: unknown; message?: unknown }
    if (kind === 'Status' && typeof message === 'string') return message.slice(0, 300)
  } catch {
    // The status is the error; its text is a courtesy.
  }
  return ''
}
