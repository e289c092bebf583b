import { chmodSync, mkdirSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createConnection } from 'node:net'
import { dirname } from 'node:path'
import { IntegrationError } from '../errors.ts'
import { GraphDriver, type DriverOptions } from './driver.ts'
import { IdMap } from './id-map.ts'
import { readKept, writeKept } from './kept-init.ts'

export interface PluginOptions {
  /** Where dockerd looks for the plugin: `/run/docker/plugins/<name>.sock`. */
  readonly socket: string
  /** What dockerd said at its start is kept here: it does not say it again to a plugin that starts anew. */
  readonly stateFile: string
  readonly nydusd: string
  readonly overlayHelper: string
  readonly config: string | undefined
  readonly log: (line: string) => void
}

type Request = Readonly<Record<string, unknown>>
type Method = (driver: GraphDriver, request: Request) => Promise<object> | object

const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.2+json'
/** A mount label, storage options and id maps are all that is in a request. */
const MAX_BODY = 1 << 20
const TAR_TYPE = 'application/x-tar'

/** Calls that take and give JSON. Source: Docker's documentation, "Graph driver plugin API". */
const METHODS: Readonly<Record<string, Method>> = {
  'GraphDriver.Create': create,
  'GraphDriver.CreateReadWrite': create,
  'GraphDriver.Remove': async (driver, request) => {
    await driver.remove(text(request, 'ID'))
    return {}
  },
  'GraphDriver.Get': async (driver, request) => ({
    Dir: await driver.get(text(request, 'ID'), text(request, 'MountLabel', '')),
  }),
  'GraphDriver.Put': async (driver, request) => {
    await driver.put(text(request, 'ID'))
    return {}
  },
  'GraphDriver.Exists': (driver, request) => ({ Exists: driver.exists(text(request, 'ID')) }),
  'GraphDriver.Status': async (driver) => ({ Status: await driver.status() }),
  'GraphDriver.GetMetadata': async (driver, request) => ({ Metadata: await driver.metadata(text(request, 'ID')) }),
  'GraphDriver.Cleanup': async (driver) => {
    await driver.cleanup()
    return {}
  },
  'GraphDriver.Changes': async (driver, request) => ({
    Changes: (await driver.changes(text(request, 'ID'), text(request, 'Parent', ''))).map(({ path, kind }) => ({
      Path: Buffer.from(path, 'latin1').toString(),
      Kind: kind,
    })),
  }),
  'GraphDriver.DiffSize': async (driver, request) => ({
    Size: await driver.diffSize(text(request, 'ID'), text(request, 'Parent', '')),
  }),
}

async function create(driver: GraphDriver, request: Request): Promise<object> {
  const storage = request['StorageOpt'] ?? {}
  if (typeof storage !== 'object') throw new IntegrationError('BAD_OPTION', 'StorageOpt must be an object')
  await driver.create(text(request, 'ID'), text(request, 'Parent', ''), storage as Request)
  return {}
}

/** The plugin that dockerd talks to, until `close`. What it mounted stays when it ends; `Cleanup`, which dockerd calls at its own end, takes it away. */
export class GraphDriverPlugin {
  readonly #options: PluginOptions
  readonly #server: Server
  #driver: GraphDriver | undefined

  private constructor(options: PluginOptions) {
    this.#options = options
    this.#server = createServer((request, response) => void this.#answer(request, response))
    // Layers take as long as they take.
    this.#server.requestTimeout = 0
  }

  /** Throws IntegrationError, or the system's error for a socket that cannot be. */
  static async start(options: PluginOptions): Promise<GraphDriverPlugin> {
    const plugin = new GraphDriverPlugin(options)
    const kept = readKept(options.stateFile)
    if (kept !== undefined) {
      plugin.#driver = new GraphDriver(plugin.#driverOptions(kept))
      options.log(`goes on with ${kept.Home}`)
    }
    mkdirSync(dirname(options.socket), { recursive: true, mode: 0o755 })
    if (await answers(options.socket))
      throw new IntegrationError(
        'FAILED',
        `another process answers on ${options.socket}; stop it, or choose another name`,
      )
    rmSync(options.socket, { force: true })
    await new Promise<void>((resolve, reject) => {
      plugin.#server.once('error', reject)
      plugin.#server.listen(options.socket, resolve)
    })
    chmodSync(options.socket, 0o600)
    return plugin
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeIdleConnections()
    await closed
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = URL.parse(`http://plugin${request.url}`)
    const name = url?.pathname.slice(1) ?? ''
    try {
      if (request.method !== 'POST')
        throw new IntegrationError('UNSUPPORTED', `${request.method} is not a method of plugins`)
      if (name === 'GraphDriver.Diff') await this.#diff(await body(request), response)
      else if (name === 'GraphDriver.ApplyDiff') {
        const size = await this.#ready().applyDiff(url?.searchParams.get('id') ?? '', request)
        send(response, 200, { Size: size, Err: '' })
      } else send(response, 200, { ...(await this.#call(name, await body(request))), Err: '' })
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      this.#options.log(`${name}: ${message}`)
      request.resume() // whoever still sends must not wait
      // A tar that breaks off in the middle can only be cut.
      if (response.headersSent) response.destroy()
      else send(response, 500, { Err: message })
    }
  }

  async #call(name: string, request: Request): Promise<object> {
    if (name === 'Plugin.Activate') return { Implements: ['GraphDriver'] }
    if (name === 'GraphDriver.Init') return this.#init(request)
    if (name === 'GraphDriver.Capabilities')
      // Docker's documentation has it one way, its own library the other.
      return { ReproducesExactDiffs: false, Capabilities: { ReproducesExactDiffs: false } }
    const method = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined
    if (method === undefined) throw new IntegrationError('UNSUPPORTED', `there is no call ${name}`)
    return await method(this.#ready(), request)
  }

  #init(request: Request): object {
    const kept = {
      Home: text(request, 'Home'),
      Opts: strings(request['Opts']),
      UIDMaps: request['UIDMaps'] ?? [],
      GIDMaps: request['GIDMaps'] ?? [],
    }
    if (!kept.Home.startsWith('/'))
      throw new IntegrationError('BAD_OPTION', `Home ${kept.Home} must be an absolute path`)
    this.#driver = new GraphDriver(this.#driverOptions(kept))
    writeKept(this.#options.stateFile, kept)
    this.#options.log(`serves ${kept.Home}`)
    return {}
  }

  /** Options of dockerd: `--storage-opt nydus.config=FILE`. */
  #driverOptions(kept: ReturnType<typeof readKept> & object): DriverOptions {
    let { config } = this.#options
    for (const option of kept.Opts) {
      const [key, value = ''] = option.split(/=(.*)/, 2)
      if (key !== 'nydus.config')
        throw new IntegrationError('BAD_OPTION', `storage option ${option} is unknown; there is only nydus.config=FILE`)
      config = value
    }
    const { nydusd, overlayHelper } = this.#options
    return { home: kept.Home, ids: new IdMap(kept.UIDMaps, kept.GIDMaps), nydusd, overlayHelper, config }
  }

  #ready(): GraphDriver {
    if (this.#driver === undefined)
      throw new IntegrationError('FAILED', 'the driver was not initialised yet (GraphDriver.Init)')
    return this.#driver
  }

  async #diff(request: Request, response: ServerResponse): Promise<void> {
    const driver = this.#ready()
    await driver.diff(text(request, 'ID'), text(request, 'Parent', ''), async (bytes) => {
      if (!response.headersSent) response.writeHead(200, { 'content-type': TAR_TYPE })
      if (response.destroyed) throw new IntegrationError('FAILED', 'dockerd does not want the rest of the layer')
      // The writer may use its buffer again.
      if (!response.write(Buffer.from(bytes)))
        await new Promise<void>((resolve) => {
          response.once('drain', resolve).once('close', resolve)
        })
    })
    response.end()
  }
}

/** Does anybody take connections on this socket? */
async function answers(path: string): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = createConnection(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

async function body(request: IncomingMessage): Promise<Request> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > MAX_BODY) throw new IntegrationError('BAD_OPTION', `a request has at most ${MAX_BODY} bytes`)
    parts.push(part)
  }
  const given = Buffer.concat(parts).toString()
  let value: unknown = {}
  try {
    if (given.trim() !== '') value = JSON.parse(given)
  } catch (cause) {
    throw new IntegrationError('BAD_OPTION', 'the request is not JSON', { cause })
  }
  if (value === null) return {}
  if (typeof value === 'object' && !Array.isArray(value)) return value as Request
  throw new IntegrationError('BAD_OPTION', 'the request must be a JSON object')
}

function text(request: Request, name: string, fallback?: string): string {
  const value = request[name] ?? fallback
  if (typeof value === 'string') return value
  throw new IntegrationError('BAD_OPTION', `the request lacks ${name}, a text`)
}

function strings(value: unknown): readonly string[] {
  if (value === undefined || value === null) return []
  if (Array.isArray(value) && value.every((one) => typeof one === 'string')) return value
  throw new IntegrationError('BAD_OPTION', 'Opts must be a list of texts')
}

function send(response: ServerResponse, status: number, value: object): void {
  response.writeHead(status, { 'content-type': CONTENT_TYPE })
  response.end(`${JSON.stringify(value)}\n`)
}
