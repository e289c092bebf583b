import { type IncomingMessage, request } from 'node:http'
import { osError } from '../os-error.ts'
import { parseJson, type Json } from './json.ts'
import { printable } from './printable.ts'
import { debugText } from './rust-text.ts'
import { deadlineSignal } from '../../kernel/index.ts'

/**
 * `UNREACHABLE`: nobody answers at the socket. `NOT_OURS`: somebody does who is no nydusd. `REFUSED`: nydusd says no; `status` and `answer` tell what. `TIMEOUT`: no answer
 * in time.
 */
export type ClientErrorCode = 'UNREACHABLE' | 'NOT_OURS' | 'REFUSED' | 'TIMEOUT'

/** The one error class of calls to a daemon. */
export class ClientError extends Error {
  override readonly name = 'ClientError'
  readonly code: ClientErrorCode
  readonly status: number | undefined
  readonly answer: Json | undefined

  constructor(
    code: ClientErrorCode,
    message: string,
    options: ErrorOptions & { readonly status?: number; readonly answer?: Json } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.code = code
    this.status = options.status
    this.answer = options.answer
  }
}

/** A call that changes something. */
export interface Change {
  readonly method: 'PUT' | 'POST' | 'DELETE'
  readonly path: string
  readonly query?: Readonly<Record<string, string>>
  readonly body?: unknown
}

interface Answer {
  readonly status: number
  readonly json: Json | undefined
}

/** A question may wait behind a mount that the daemon is busy with; a mount reads its image first. */
const ASK_DEADLINE_MS = 60_000
const CHANGE_DEADLINE_MS = 300_000
/** No answer of a daemon is longer, but for the counters of very many files. */
const MAX_ANSWER_BYTES = 256 << 20
/** What daemons call themselves; the second one speaks before a request reaches the API. */
const SERVERS = new Set(['Nydus API', 'Firecracker API'])

/** Speaks version 1 of a daemon's API over its Unix socket, a connection a call. All methods throw ClientError. */
export class NydusdClient {
  readonly socketPath: string
  readonly #signal: AbortSignal

  constructor(socketPath: string, signal: AbortSignal) {
    this.socketPath = socketPath
    this.#signal = signal
  }

  /** What `GET /api/<path>` answers; null when there is nothing to tell. */
  async get(path: string, query: Readonly<Record<string, string>> = {}, deadlineMs = ASK_DEADLINE_MS): Promise<Json> {
    const { json } = await this.#call({ method: 'GET', path, query }, deadlineMs)
    return json ?? null
  }

  /** Resolves when it is done. */
  async change(change: Change): Promise<void> {
    await this.#call(change, CHANGE_DEADLINE_MS)
  }

  async #call(call: Omit<Change, 'method'> & { readonly method: string }, deadlineMs: number): Promise<Answer> {
    const body = call.body === undefined ? undefined : JSON.stringify(call.body)
    const query = new URLSearchParams(call.query).toString()
    const deadline = deadlineSignal(deadlineMs)
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const sent = request({
      socketPath: this.socketPath,
      agent: false,
      method: call.method,
      path: `/api/${call.path}${query === '' ? '' : `?${query}`}`,
      headers: {
        'user-agent': 'nydusctl',
        ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }),
      },
      signal: AbortSignal.any([this.#signal, deadline]),
    })
    sent.once('response', resolve).on('error', reject)
    sent.end(body)
    try {
      const response = await promise
      return this.#judge(response, await textOf(response))
    } catch (error) {
      throw this.#signal.aborted ? this.#signal.reason : this.#translate(error, deadline.aborted ? deadlineMs : 0)
    } finally {
      sent.destroy()
    }
  }

  #judge(response: IncomingMessage, text: string): Answer {
    const { statusCode: status = 0, headers } = response
    const server = String(headers['server'] ?? '')
    if (!SERVERS.has(server))
      throw this.#notOurs(
        server === '' ? 'its answers have no "Server: Nydus API"' : `it is ${JSON.stringify(server.slice(0, 100))}`,
      )
    const json = text === '' ? undefined : parseJson(text)
    if (status >= 400)
      throw new ClientError('REFUSED', `Request failed. ${refusalText(json, text)}`, {
        status,
        ...(json === undefined ? {} : { answer: json }),
      })
    if (json === undefined && text !== '') throw this.#notOurs('its answer is no JSON')
    return { status, json }
  }

  #notOurs(why: string): ClientError {
    return new ClientError(
      'NOT_OURS',
      `what answers at ${this.socketPath} is no nydusd: ${why}; give the socket that nydusd was started with (--apisock) to -S`,
    )
  }

  #translate(error: unknown, waitedMs: number): unknown {
    if (error instanceof ClientError) return error
    if (waitedMs > 0)
      return new ClientError(
        'TIMEOUT',
        `nydusd at ${this.socketPath} did not answer in ${waitedMs / 1000} s: it hangs, or is busy with a mount`,
      )
    const code = (error as NodeJS.ErrnoException).code ?? ''
    const cause = new Error(osError(error))
    if (code === 'ECONNRESET' || code === 'EPIPE')
      return new ClientError(
        'UNREACHABLE',
        `nydusd at ${this.socketPath} hung up before it had answered; has it ended?`,
        { cause },
      )
    if (code.startsWith('HPE_')) return this.#notOurs('it does not speak HTTP')
    return new ClientError(
      'UNREACHABLE',
      `cannot reach nydusd at ${this.socketPath}: ${hintOf(code, this.socketPath)}`,
      { cause },
    )
  }
}

function hintOf(code: string, path: string): string {
  switch (code) {
    case 'ENOENT':
      return `there is no such socket; start "nydusd --apisock ${path} …", or give the socket of a running one with -S`
    case 'ECONNREFUSED':
      return 'nobody listens there: nydusd has ended or was killed, or this is no socket; start it again'
    case 'EACCES':
    case 'EPERM':
      return 'only its owner may use it; run nydusctl as that user'
    default:
      return 'it cannot be used'
  }
}

/** What a message shows of a refusal that is no JSON. */
const MAX_SHOWN = 1000

function refusalText(json: Json | undefined, text: string): string {
  return json === undefined ? printable(text.slice(0, MAX_SHOWN)) : debugText(json)
}

/** Throws ClientError 'NOT_OURS' for one that does not end. */
async function textOf(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.length
    if (bytes > MAX_ANSWER_BYTES)
      throw new ClientError('NOT_OURS', `the answer is longer than ${MAX_ANSWER_BYTES} bytes: this is no nydusd`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}
