/** For tests: an API server over TLS that has secrets only, and is as strict as the real one about what it is asked. */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { makeAuthority } from '../../../registry/test-authority/index.ts'

let made: string | undefined

/** What `makeAuthority` makes, made once a process. */
export function putCertificates(folder: string): void {
  if (made === undefined) {
    const first = mkdtempSync(join(tmpdir(), 'kube-certificates-'))
    process.once('exit', () => rmSync(first, { recursive: true, force: true }))
    makeAuthority(first)
    made = first
  }
  cpSync(made, folder, { recursive: true })
}

interface Secret {
  readonly kind: 'Secret'
  readonly metadata: { readonly namespace: string; readonly name: string; readonly resourceVersion: string }
  readonly type: string
  readonly data: Readonly<Record<string, string>>
}

interface Happened {
  readonly version: number
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly object: Secret
}

/** Base64 of a Docker configuration with one login. */
export function dockerConfig(host: string, username: string, password: string): string {
  const auth = Buffer.from(`${username}:${password}`).toString('base64')
  return Buffer.from(JSON.stringify({ auths: { [host]: { auth } } })).toString('base64')
}

const TYPE = 'kubernetes.io/dockerconfigjson'

export class MiniKube {
  readonly tokens = new Set<string>()
  /** Requests by kind. */
  readonly counts = { list: 0, watch: 0, unauthorized: 0, gone: 0 }
  /** Pages have at most so many secrets, whatever limit is asked for. */
  pageSize = 1000
  /** Tokens of continued lists that have expired. */
  expireContinue = false
  readonly #folder: string
  readonly #secrets = new Map<string, Secret>()
  readonly #happened: Happened[] = []
  readonly #watches = new Map<ServerResponse, string>()
  #version = 100
  /** What happened up to this is forgotten. */
  #compacted = 0
  #server: Server | undefined
  #port = 0

  constructor(folder: string) {
    this.#folder = folder
  }

  get url(): string {
    return `https://127.0.0.1:${this.#port}`
  }

  /** Watches that are open now. */
  get watches(): number {
    return this.#watches.size
  }

  async start(): Promise<void> {
    const read = (name: string): Buffer => readFileSync(join(this.#folder, name))
    const tls = {
      cert: read('server.pem'),
      key: read('server.key'),
      ca: read('ca.pem'),
      requestCert: true,
      rejectUnauthorized: false,
    }
    const server = createServer(tls, (request, response) => this.#answer(request, response))
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve))
    this.#port = (server.address() as AddressInfo).port // it listens on TCP
    this.#server = server
  }

  /** Breaks all connections; `start` listens on the same port again. */
  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (server === undefined) return
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }

  put(namespace: string, name: string, config: string, type = TYPE): void {
    const key = `${namespace}/${name}`
    this.#version += 1
    const metadata = { namespace, name, resourceVersion: String(this.#version) }
    const object: Secret = { kind: 'Secret', metadata, type, data: { '.dockerconfigjson': config } }
    this.#tell({ version: this.#version, type: this.#secrets.has(key) ? 'MODIFIED' : 'ADDED', object })
    this.#secrets.set(key, object)
  }

  remove(namespace: string, name: string): void {
    const object = this.#secrets.get(`${namespace}/${name}`)
    assert.ok(object)
    this.#secrets.delete(`${namespace}/${name}`)
    this.#version += 1
    const metadata = { ...object.metadata, resourceVersion: String(this.#version) }
    this.#tell({ version: this.#version, type: 'DELETED', object: { ...object, metadata } })
  }

  /** Something else happens in the cluster; watches that asked for them get a bookmark. */
  bookmark(): void {
    this.#version += 50
    for (const watch of this.#watches.keys())
      watch.write(
        `${JSON.stringify({ type: 'BOOKMARK', object: { kind: 'Secret', metadata: { resourceVersion: String(this.#version) } } })}\n`,
      )
  }

  /** Forgets what happened so far: a watch from before is 410 Gone. */
  compact(): void {
    this.#compacted = this.#version
  }

  /** Ends all watches as their time limit does. */
  endWatches(): void {
    for (const watch of this.#watches.keys()) watch.end()
  }

  /** What a server tells in an open watch when it has lost its place. */
  goneInWatches(): void {
    const object = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version' }
    for (const watch of this.#watches.keys()) watch.end(`${JSON.stringify({ type: 'ERROR', object })}\n`)
  }

  /** Writes to all watches, as it is. */
  say(text: string): void {
    for (const watch of this.#watches.keys()) watch.write(text)
  }

  #tell(happened: Happened): void {
    this.#happened.push(happened)
    for (const watch of this.#watches.keys()) watch.write(lineOf(happened))
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '/', this.url)
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
    if (!(request.socket as TLSSocket).authorized && !(token !== undefined && this.tokens.has(token))) {
      this.counts.unauthorized += 1
      this.#refuse(response, 401, 'Unauthorized')
      return
    }
    const asked = url.searchParams
    if (request.method !== 'GET' || url.pathname !== '/api/v1/secrets')
      return this.#refuse(response, 404, 'no such resource')
    if (asked.get('fieldSelector') !== `type=${TYPE}`)
      return this.#refuse(response, 403, 'secrets is forbidden: all of them')
    if (asked.get('watch') === 'true') this.#watch(asked, response)
    else this.#list(asked, response)
  }

  #list(asked: URLSearchParams, response: ServerResponse): void {
    this.counts.list += 1
    const limit = Number(asked.get('limit'))
    if (!(limit >= 1 && limit <= 500)) return this.#refuse(response, 400, 'a limit is wanted')
    const [version, start] = (asked.get('continue') ?? `${this.#version}:0`).split(':').map(Number)
    if (asked.has('continue') && this.expireContinue) {
      this.expireContinue = false
      this.counts.gone += 1
      return this.#refuse(response, 410, 'The provided continue parameter is too old')
    }
    const all = [...this.#secrets.values()].filter(({ type }) => type === TYPE)
    const end = (start ?? 0) + Math.min(limit, this.pageSize)
    const metadata = {
      resourceVersion: String(version),
      ...(end < all.length ? { continue: `${version}:${end}` } : {}),
    }
    // As the real one: items of a list have no kind.
    const items = all.slice(start, end).map(({ metadata: of, type, data }) => ({ metadata: of, type, data }))
    response.writeHead(200, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ kind: 'SecretList', apiVersion: 'v1', metadata, items }))
  }

  #watch(asked: URLSearchParams, response: ServerResponse): void {
    this.counts.watch += 1
    const version = Number(asked.get('resourceVersion'))
    if (asked.get('allowWatchBookmarks') !== 'true' || !(Number(asked.get('timeoutSeconds')) > 0))
      return this.#refuse(response, 400, 'bookmarks and a time limit are wanted')
    if (version < this.#compacted) {
      this.counts.gone += 1
      return this.#refuse(response, 410, 'too old resource version')
    }
    response.writeHead(200, { 'content-type': 'application/json', 'transfer-encoding': 'chunked' })
    response.flushHeaders()
    this.#watches.set(response, '')
    response.once('close', () => this.#watches.delete(response))
    for (const happened of this.#happened) if (happened.version > version) response.write(lineOf(happened))
  }

  #refuse(response: ServerResponse, code: number, message: string): void {
    response.writeHead(code, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', code, message }))
  }
}

function lineOf({ type, object }: Happened): string {
  return `${JSON.stringify({ type, object })}\n`
}
