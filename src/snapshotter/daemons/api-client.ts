/** The API of a nydusd, ours or the original's, over its Unix socket. Source: docs/nydusd.md, "API". */
import { request } from 'node:http'
import * as v from 'valibot'
import { SnapshotterError } from '../errors.ts'
import type { WrittenLogin } from './config-template.ts'
import { messageOf } from './message.ts'
import { Deadline } from '../../kernel/index.ts'

/** An image with many blobs has long lists of files. */
const MAX_ANSWER_BYTES = 16 << 20
const DEADLINE_MS = 30_000
const INFO = v.object({
  state: v.string(),
  version: v.object({ package_ver: v.optional(v.string(), ''), git_commit: v.optional(v.string(), '') }),
  backend_collection: v.nullish(v.record(v.string(), v.unknown())),
})
const REFUSAL = v.object({ message: v.string() })

export interface ApiAnswer {
  readonly status: number
  readonly text: string
}

/** What `GET /api/v1/daemon` tells. */
export interface DaemonInfo {
  /** INIT, READY, RUNNING, STOPPED. */
  readonly state: string
  readonly version: { readonly packageVersion: string; readonly gitCommit: string }
  /** Paths inside the session at which something is mounted. */
  readonly mounted: readonly string[]
}

export interface MountBody {
  readonly source: string
  /** A configuration document. */
  readonly config: string
  readonly prefetchFiles: readonly string[]
}

/** Calls are independent of one another: each has its own connection and a deadline of half a minute. */
export class DaemonApi {
  readonly socket: string

  constructor(socket: string) {
    this.socket = socket
  }

  async info(signal?: AbortSignal): Promise<DaemonInfo> {
    const told = v.safeParse(INFO, parse(await this.#get('/api/v1/daemon', signal)))
    if (!told.success) throw new SnapshotterError('UNAVAILABLE', `what answers at ${this.socket} is no nydusd`)
    const { state, version, backend_collection: mounted } = told.output
    return {
      state,
      version: { packageVersion: version.package_ver, gitCommit: version.git_commit },
      mounted: Object.keys(mounted ?? {}),
    }
  }

  async mount(at: string, { source, config, prefetchFiles }: MountBody, signal?: AbortSignal): Promise<void> {
    const list = prefetchFiles.length === 0 ? {} : { prefetch_files: prefetchFiles }
    const body = { fs_type: 'rafs', source, config, ...list }
    await this.#act('POST', `/api/v1/mount?mountpoint=${encodeURIComponent(at)}`, body, signal)
  }

  async unmount(at: string): Promise<void> {
    await this.#act('DELETE', `/api/v1/mount?mountpoint=${encodeURIComponent(at)}`)
  }

  /** The session's descriptor and state go to the supervisor's socket, from which somebody must read. */
  async sendState(): Promise<void> {
    await this.#act('PUT', '/api/v1/daemon/fuse/sendfd')
  }

  async takeOver(): Promise<void> {
    await this.#act('PUT', '/api/v1/daemon/fuse/takeover')
  }

  async start(): Promise<void> {
    await this.#act('PUT', '/api/v1/daemon/start')
  }

  /** The process ends, and the mount stays. */
  async exit(): Promise<void> {
    await this.#act('PUT', '/api/v1/daemon/exit')
  }

  /** What stands in the configuration of an image from now on; of the original's nydusd only `auth`, which refuses tokens. */
  async setLogin(at: string, login: WrittenLogin): Promise<void> {
    const body = 'auth' in login ? { registry_auth: login.auth } : { registry_token: login.token }
    await this.#act('PUT', `/api/v1/config?id=${encodeURIComponent(at)}`, body)
  }

  /** What one of the metrics' routes says; undefined for what there is nothing of. Without `id`: of the only mount. */
  async metrics(
    kind: '' | '/backend' | '/blobcache' | '/inflight',
    id?: string,
    signal?: AbortSignal,
  ): Promise<unknown> {
    const query = id === undefined ? '' : `?id=${encodeURIComponent(id)}`
    const answer = await this.#call('GET', `/api/v1/metrics${kind}${query}`, undefined, signal)
    if (answer.status === 204 || answer.status === 404) return undefined
    if (answer.status !== 200) throw refusal(this.socket, `GET /api/v1/metrics${kind}`, answer)
    return parse(answer)
  }

  async #get(path: string, signal?: AbortSignal): Promise<ApiAnswer> {
    const answer = await this.#call('GET', path, undefined, signal)
    if (answer.status !== 200) throw refusal(this.socket, `GET ${path}`, answer)
    return answer
  }

  async #act(method: string, path: string, body?: object, signal?: AbortSignal): Promise<void> {
    const answer = await this.#call(method, path, body, signal)
    if (answer.status !== 200 && answer.status !== 204) throw refusal(this.socket, `${method} ${path}`, answer)
  }

  async #call(method: string, path: string, body?: object, signal?: AbortSignal): Promise<ApiAnswer> {
    using deadline = new Deadline(DEADLINE_MS)
    const late = deadline.signal
    const ended = signal === undefined ? late : AbortSignal.any([late, signal])
    try {
      return await exchange({ socketPath: this.socket, method, path, body, signal: ended })
    } catch (error) {
      const code = late.aborted ? 'DEADLINE_EXCEEDED' : signal?.aborted === true ? 'CANCELLED' : 'UNAVAILABLE'
      const why = late.aborted ? `no answer within ${DEADLINE_MS} ms` : messageOf(error)
      throw new SnapshotterError(code, `nydusd at ${this.socket} does not answer ${method} ${path}: ${why}`, {
        cause: error,
      })
    }
  }
}

interface Exchange {
  readonly socketPath: string
  readonly method: string
  readonly path: string
  readonly body: object | undefined
  readonly signal: AbortSignal
}

async function exchange({ socketPath, method, path, body, signal }: Exchange): Promise<ApiAnswer> {
  const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body))
  // a body of unknown length would be sent in chunks, which the original does not read
  const headers = { 'content-length': bytes?.length ?? 0, ...(bytes && { 'content-type': 'application/json' }) }
  const { promise, resolve, reject } = Promise.withResolvers<ApiAnswer>()
  const call = request({ socketPath, method, path, headers, agent: false, signal }, (response) => {
    const parts: Buffer[] = []
    let length = 0
    response.on('data', (part: Buffer) => {
      length += part.length
      if (length > MAX_ANSWER_BYTES) call.destroy(new Error(`the answer has more than ${MAX_ANSWER_BYTES} bytes`))
      else parts.push(part)
    })
    response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() }))
    response.on('error', reject)
    response.on('close', () => reject(new Error('the answer ends before it is whole')))
  })
  call.on('error', reject)
  call.end(bytes)
  return await promise
}

function parse({ text }: ApiAnswer): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new SnapshotterError('UNAVAILABLE', 'nydusd answers with what is no JSON', { cause: error })
  }
}

/** Answers to requests may repeat what they were sent: configurations have logins in them, and nydusd's own messages do not. */
function refusal(socket: string, call: string, { status, text }: ApiAnswer): SnapshotterError {
  const message = refusalText(text)
  return new SnapshotterError('INTERNAL', `nydusd at ${socket} refuses ${call}: ${status} ${message.slice(0, 1000)}`)
}

function refusalText(text: string): string {
  try {
    return v.parse(REFUSAL, JSON.parse(text)).message
  } catch {
    return text // the server below the API answers in its own words
  }
}
