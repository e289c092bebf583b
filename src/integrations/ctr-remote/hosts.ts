import { readFileSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { parse } from 'smol-toml'
import { IntegrationError } from '../errors.ts'

/** Who is asked for an image, in this order. */
export interface RegistryHost {
  readonly scheme: 'http' | 'https'
  /** With the port if one was given. */
  readonly host: string
  readonly capabilities: ReadonlySet<'pull' | 'resolve'>
  /** PEM text. */
  readonly ca: string | undefined
  readonly skipVerify: boolean
  readonly clientCertificate: { readonly cert: string; readonly key: string } | undefined
  readonly headers: Readonly<Record<string, string>>
}

/** What a host's section says, and the top of the file for the registry itself. */
interface HostSection {
  readonly server?: unknown
  readonly capabilities?: unknown
  readonly ca?: unknown
  readonly skip_verify?: unknown
  readonly client?: unknown
  readonly header?: unknown
  readonly override_path?: unknown
}

const ALL = ['pull', 'resolve'] as const
/** The others mean nothing to a pull. */
const KNOWN: ReadonlySet<string> = new Set([...ALL, 'push', 'referrers'])

/**
 * Reads `hosts.toml` of a registry, as containerd does, from the first of `<host>_<port>_`, `<host>:<port>` (`<host>` where it has no port) and `_default` in the directory that has one; undefined when none has.
 * The registry itself comes last. Throws 'BAD_OPTION' that names file and key.
 */
export function readHosts(directory: string, registry: string): RegistryHost[] | undefined {
  const [name, port] = registry.split(':')
  const candidates = [...(port === undefined ? [] : [`${name}_${port}_`]), registry, '_default']
  for (const candidate of candidates) {
    const folder = join(directory, candidate)
    const text = readOptional(join(folder, 'hosts.toml'))
    if (text !== undefined) return parseHosts(text, folder, registry)
  }
  return undefined
}

function parseHosts(text: string, folder: string, registry: string): RegistryHost[] {
  const path = join(folder, 'hosts.toml')
  let table: HostSection & { readonly host?: unknown }
  try {
    table = parse(text)
  } catch (cause) {
    throw new IntegrationError('BAD_OPTION', `cannot use ${path}: ${(cause as Error).message}`, { cause })
  }
  const sections = Object.entries(isTable(table.host) ? table.host : {}).map(
    ([url, section]) => [url, isTable(section) ? section : {}] as const,
  )
  const server = typeof table.server === 'string' ? table.server : `https://${registry}`
  return [...sections, [server, table] as const].map(([url, section]) =>
    new Section(section, { path, folder, url }).host(),
  )
}

class Section {
  readonly #section: HostSection
  readonly #place: { readonly path: string; readonly folder: string; readonly url: string }

  constructor(section: HostSection, place: { readonly path: string; readonly folder: string; readonly url: string }) {
    this.#section = section
    this.#place = place
  }

  host(): RegistryHost {
    const { url } = this.#place
    const address = URL.parse(/^https?:\/\//.test(url) ? url : `https://${url}`)
    if (address === null || this.#section.override_path === true || !/^\/(?:v2\/?)?$/.test(address.pathname))
      throw this.#bad('host', `${url}: write http(s)://HOST[:PORT]; paths and override_path are not supported`)
    return {
      scheme: address.protocol === 'http:' ? 'http' : 'https',
      host: address.host,
      capabilities: this.#capabilities(),
      ca: this.#certificates(),
      skipVerify: this.#section.skip_verify === true,
      clientCertificate: this.#client(),
      headers: this.#headers(),
    }
  }

  #capabilities(): ReadonlySet<'pull' | 'resolve'> {
    const { capabilities = ALL } = this.#section
    if (!Array.isArray(capabilities)) throw this.#bad('capabilities', 'write a list, as ["pull", "resolve"]')
    const names = capabilities.map((name) => String(name).toLowerCase())
    const unknown = names.find((name) => !KNOWN.has(name))
    if (unknown !== undefined)
      throw this.#bad('capabilities', `there is no ${JSON.stringify(unknown)}; write "pull" or "resolve"`)
    return new Set(names.length === 0 ? ALL : ALL.filter((name) => names.includes(name)))
  }

  #certificates(): string | undefined {
    const { ca } = this.#section
    if (ca === undefined) return undefined
    const paths = (Array.isArray(ca) ? ca : [ca]).map((path) => this.#file('ca', path))
    return paths.join('\n')
  }

  #client(): RegistryHost['clientCertificate'] {
    const { client } = this.#section
    if (client === undefined) return undefined
    const [first] = Array.isArray(client) ? client : [client]
    const [cert, key] = Array.isArray(first) ? first : Array.isArray(client) ? client : [client, client]
    return { cert: this.#file('client', cert), key: this.#file('client', key ?? cert) }
  }

  #headers(): Record<string, string> {
    const { header } = this.#section
    if (header === undefined) return {}
    if (!isTable(header)) throw this.#bad('header', 'write a table of texts')
    return Object.fromEntries(
      Object.entries(header).map(([name, value]) => [name, Array.isArray(value) ? value.join(', ') : String(value)]),
    )
  }

  #file(key: string, path: unknown): string {
    if (typeof path !== 'string') throw this.#bad(key, 'write the path of a PEM file')
    try {
      return readFileSync(isAbsolute(path) ? path : join(this.#place.folder, path), 'utf8')
    } catch (cause) {
      throw this.#bad(key, `${path}: ${(cause as Error).message}`, cause)
    }
  }

  #bad(key: string, why: string, cause?: unknown): IntegrationError {
    return new IntegrationError('BAD_OPTION', `cannot use ${this.#place.path}: ${key}: ${why}`, { cause })
  }
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function readOptional(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes((cause as NodeJS.ErrnoException).code ?? '')) return undefined
    throw new IntegrationError('BAD_OPTION', `cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
}
