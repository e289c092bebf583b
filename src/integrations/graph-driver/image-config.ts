import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { type Credentials, fromDockerConfig, parseReference, type Reference } from '../../registry/index.ts'
import { IntegrationError } from '../errors.ts'

type Table = Record<string, unknown>

/** What is used without a file: the registry that the image was pulled from. */
const DEFAULT_CONFIG = {
  device: { backend: { type: 'registry', config: {} }, cache: { type: 'blobcache', config: {} } },
  mode: 'direct',
  enable_xattr: true,
  fs_prefetch: { enable: true, threads_count: 8, merging_size: 1_048_576 },
}

/** Where dockerd keeps what it knows of layers, and how images are read. */
export interface ImageConfigOptions {
  /** nydusd's document, JSON; version 1 or 2. Absent: `DEFAULT_CONFIG`. */
  readonly template: string | undefined
  /** The driver's home, `<data root>/<driver>`. */
  readonly home: string
  readonly cacheDirectory: string
}

/** nydusd's document for the image of a layer: the template, completed by the registry that the layer was pulled from, a login, and a cache directory. It may hold secrets. */
export async function imageConfig(options: ImageConfigOptions, layer: string): Promise<string> {
  const config = readTemplate(options.template)
  const isSecond = config['version'] === 2
  const device = isSecond ? config : table(config, 'device')
  const cache = table(table(device, 'cache'), isSecond ? 'filecache' : 'config')
  cache['work_dir'] ??= options.cacheDirectory
  const backend = table(device, 'backend')
  if (backend['type'] === 'registry')
    await completeRegistry(table(backend, isSecond ? 'registry' : 'config'), options.home, layer)
  return JSON.stringify(config)
}

async function completeRegistry(registry: Table, home: string, layer: string): Promise<void> {
  if (isText(registry['host']) && isText(registry['repo'])) return
  const source = sourceOf(home, layer)
  if (source === undefined)
    throw new IntegrationError(
      'FAILED',
      `cannot tell which registry the image of layer ${layer} is from: dockerd's notes (${imageRoot(home)}) do not say; name host and repo in the driver's configuration (--config)`,
    )
  registry['host'] = source.host === 'docker.io' ? 'index.docker.io' : source.host
  registry['repo'] = source.repository
  // As dockerd has it: registries of this machine need no certificate.
  if (/^(?:localhost|127\.\d+\.\d+\.\d+)(?::\d+)?$/.test(source.host)) registry['scheme'] ??= 'http'
  if (!isText(registry['auth'])) {
    const auth = basicAuth(await fromDockerConfig()(source.host))
    if (auth !== undefined) registry['auth'] = auth
  }
}

function basicAuth(credentials: Credentials): string | undefined {
  if (credentials.kind !== 'basic') return undefined
  return Buffer.from(`${credentials.username}:${credentials.password.reveal()}`).toString('base64')
}

/** dockerd notes which layer has which directory of the driver, which diff id, and which repositories it came from. */
function sourceOf(home: string, layer: string): Reference | undefined {
  const layers = join(imageRoot(home), 'layerdb/sha256')
  const chain = namesIn(layers).find((name) => optional(join(layers, name, 'cache-id'))?.trim() === layer)
  const diffId = chain === undefined ? undefined : optional(join(layers, chain, 'diff'))?.trim()
  if (diffId === undefined || !/^sha256:[0-9a-f]{64}$/.test(diffId)) return undefined
  const notes = optional(join(imageRoot(home), 'distribution/v2metadata-by-diffid/sha256', diffId.slice(7)))
  if (notes === undefined) return undefined
  const list = JSON.parse(notes) as ReadonlyArray<{ readonly SourceRepository?: string }>
  const name = list.map(({ SourceRepository }) => SourceRepository).findLast(isText)
  return name === undefined ? undefined : parseReference(name)
}

function imageRoot(home: string): string {
  return join(dirname(home), 'image', basename(home))
}

function readTemplate(path: string | undefined): Table {
  if (path === undefined) return structuredClone(DEFAULT_CONFIG)
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    if (isTable(value)) return value
    throw new Error('it is no JSON object')
  } catch (cause) {
    throw new IntegrationError('BAD_OPTION', `cannot use nydusd's configuration ${path}: ${(cause as Error).message}`, {
      cause,
    })
  }
}

/** A table in a document, made when it is not there. */
function table(of: Table, key: string): Table {
  const value = of[key]
  if (isTable(value)) return value
  const made: Table = {}
  of[key] = made
  return made
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}

function namesIn(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return [] // this dockerd keeps no such notes, or not where the driver can see them
  }
}

function optional(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined // as above
  }
}
