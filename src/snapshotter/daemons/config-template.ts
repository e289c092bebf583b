/**
 * Configurations of nydusd, made of a template and an image. The template is a document of nydusd in JSON, of version 1 or 2; what it has and we do not know
 * stays as it is. Results have logins in them: readable for the owner only, and never part of a message.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { SnapshotterError } from '../errors.ts'
import { messageOf } from './message.ts'

const MAX_BYTES = 1 << 20

/** A login: a name and a password, or a token. */
export type Credential = { readonly username: string; readonly password: string } | { readonly token: string }

/** The same as nydusd has it: base64 of `user:password`, or a token. */
export type WrittenLogin = { readonly auth: string } | { readonly token: string }

/** What differs from image to image. */
export interface ConfigFacts {
  /** Name of the mounted image; the path in the session. */
  readonly key: string
  /** Of the image, as the registry is to be called. */
  readonly host: string
  readonly repository: string
  readonly credential: Credential | undefined
  /** More keys of the backend: where mirrors are, for example. */
  readonly backend: Readonly<Record<string, unknown>>
  readonly cacheDirectory: string
  /** What the cache directory may take; Infinity leaves what the template says. */
  readonly cacheBytes: number
  readonly idMapping: readonly [container: number, host: number, size: number] | undefined
}

type Json = Record<string, unknown>

export class ConfigTemplate {
  readonly #document: Json
  readonly #path: string

  private constructor(path: string, document: Json) {
    this.#path = path
    this.#document = document
  }

  /** Throws SnapshotterError 'BAD_CONFIG'. */
  static async read(path: string): Promise<ConfigTemplate> {
    const bad = (why: string, cause?: unknown): SnapshotterError =>
      new SnapshotterError('BAD_CONFIG', `daemon.nydusd_config ${path} ${why}`, { cause })
    let text: string
    try {
      text = await readFile(path, 'utf8')
    } catch (error) {
      throw bad(`cannot be read: ${messageOf(error)}`, error)
    }
    if (text.length > MAX_BYTES) throw bad(`has more than ${MAX_BYTES} bytes`)
    const document = parseObject(text, bad)
    if (document['type'] === 'bootstrap')
      throw bad('is a template for fscache, which is not served; give one for FUSE, with the key "device"')
    const template = new ConfigTemplate(path, document)
    template.#places(structuredClone(template.#document))
    return template
  }

  /** `registry`, `localfs`, `oss`, `s3`. */
  get backendType(): string {
    return this.#places(this.#document).type
  }

  /** Host and repository that are written down in the template itself. */
  get written(): { readonly host: string; readonly repository: string } {
    const { backend } = this.#places(structuredClone(this.#document))
    const [host, repository] = [backend['host'], backend['repo']]
    return {
      host: typeof host === 'string' ? host : '',
      repository: typeof repository === 'string' ? repository : '',
    }
  }

  /** The document for an image. Without a credential the template's own login stays. */
  render(facts: ConfigFacts): Json {
    const document = structuredClone(this.#document)
    const { type, backend, cache, named, rafs } = this.#places(document)
    named['id'] = `/${facts.key}`
    cache['work_dir'] = facts.cacheDirectory
    if (Number.isFinite(facts.cacheBytes)) cache['size_limit'] = facts.cacheBytes
    if (type === 'registry') {
      backend['host'] = facts.host
      backend['repo'] = facts.repository
      Object.assign(backend, facts.backend)
      if (facts.credential !== undefined) putLogin(backend, facts.credential)
    }
    if (facts.idMapping !== undefined) rafs['id_mapping'] = facts.idMapping
    return document
  }

  /** Puts another login into a document that was rendered before. False when its backend has none. */
  static relogin(document: Json, credential: Credential): boolean {
    const { type, backend } = placesOf(document, (why) => new SnapshotterError('BAD_STATE', why))
    if (type === 'registry') putLogin(backend, credential)
    return type === 'registry'
  }

  /** The login of a registry in a document that was rendered before. */
  static loginIn(document: Json): WrittenLogin | undefined {
    const { type, backend } = placesOf(document, (why) => new SnapshotterError('BAD_STATE', why))
    const { auth, registry_token: token } = backend
    if (type !== 'registry') return undefined
    if (typeof token === 'string' && token !== '') return { token }
    return typeof auth === 'string' && auth !== '' ? { auth } : undefined
  }

  #places(document: Json): Places {
    return placesOf(document, (why) => new SnapshotterError('BAD_CONFIG', `daemon.nydusd_config ${this.#path}: ${why}`))
  }
}

interface Places {
  readonly type: string
  readonly backend: Json
  readonly cache: Json
  /** Has the key `id`. */
  readonly named: Json
  /** Has what concerns the file system. */
  readonly rafs: Json
}

/** Where things are in a document; tables that a registry's document lacks are made. */
function placesOf(document: Json, bad: (why: string) => Error): Places {
  const table = (of: Json, key: string): Json => {
    of[key] ??= {}
    const found = of[key]
    if (typeof found !== 'object' || found === null || Array.isArray(found)) throw bad(`"${key}" is no object`)
    return found as Json
  }
  const isSecond = document['version'] === 2
  const named = isSecond ? document : table(document, 'device')
  const backend = table(named, 'backend')
  const { type } = backend
  if (typeof type !== 'string' || !['registry', 'localfs', 'oss', 's3', 'localdisk', 'http-proxy'].includes(type))
    throw bad(`backend type ${JSON.stringify(type)} cannot be used; write "registry", "localfs", "oss" or "s3"`)
  const cache = table(named, 'cache')
  if (!isSecond)
    return { type, backend: table(backend, 'config'), cache: table(cache, 'config'), named, rafs: document }
  const rafs = table(document, 'rafs')
  return { type, backend: table(backend, type), cache: table(cache, 'filecache'), named, rafs }
}

function putLogin(backend: Json, credential: Credential): void {
  delete backend['auth']
  delete backend['registry_token']
  const login = writtenLogin(credential)
  if ('token' in login) backend['registry_token'] = login.token
  else backend['auth'] = login.auth
}

/** As nydusd takes it. */
export function writtenLogin(credential: Credential): WrittenLogin {
  if ('token' in credential) return { token: credential.token }
  return { auth: Buffer.from(`${credential.username}:${credential.password}`).toString('base64') }
}

/** What was written for an image. Throws SnapshotterError 'BAD_STATE'. */
export async function readConfig(path: string): Promise<Json> {
  const bad = (why: string, cause?: unknown): SnapshotterError =>
    new SnapshotterError('BAD_STATE', `the configuration ${path} ${why}`, { cause })
  try {
    return parseObject(await readFile(path, 'utf8'), bad)
  } catch (error) {
    if (error instanceof SnapshotterError) throw error
    throw bad(`cannot be read: ${messageOf(error)}`, error)
  }
}

/** Texts of documents stay out of messages, as JSON's parser would quote them. */
function parseObject(text: string, bad: (why: string) => Error): Json {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw bad('is no JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('is no JSON object')
  return value as Json
}

/** Appears whole or not at all, and only its owner can read it. */
export async function writePrivately(path: string, content: string | Uint8Array): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  try {
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(content)
      await file.datasync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    const full = (error as NodeJS.ErrnoException).code === 'ENOSPC'
    throw new SnapshotterError(
      full ? 'RESOURCE_EXHAUSTED' : 'INTERNAL',
      `cannot write ${path}: ${messageOf(error)}${full ? '; make room on its disk' : ''}`,
      { cause: error },
    )
  } finally {
    await rm(temporary, { force: true })
  }
}
