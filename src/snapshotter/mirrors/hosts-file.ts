import { readFile, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { normalHost } from '../../registry/index.ts'
import { SnapshotterError } from '../errors.ts'

/** A mirror of a registry, as `hosts.toml` tells. */
export interface MirrorHost {
  /** Scheme, host, port, and perhaps a path that stands before `/v2/`. */
  readonly url: string
  readonly caFiles: readonly string[]
  readonly headers: Readonly<Record<string, string>>
  /** Seconds; undefined: as nydusd likes. */
  readonly healthCheckInterval: number | undefined
  readonly failureLimit: number | undefined
  readonly pingUrl: string
}

type Fields = Readonly<Record<string, unknown>>

const MAX_FILE_BYTES = 1 << 20
const MAX_MIRRORS = 32

/**
 * The mirrors of a registry in the order of their file. Folders are tried as containerd does: `HOST_PORT_`, `HOST:PORT`, `_default`; the first that is there counts, also when it has no file. Docker Hub's is `docker.io`. `onIgnored` is told of what
 * nydusd cannot do for a mirror. Throws SnapshotterError 'BAD_CONFIG' that names file, mirror and key.
 */
export async function readHostsFile(
  directory: string,
  host: string,
  onIgnored: (line: string) => void,
): Promise<readonly MirrorHost[]> {
  const folder = await folderOf(directory, host)
  if (folder === undefined) return []
  const path = join(folder, 'hosts.toml')
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw bad(path, `${(error as NodeJS.ErrnoException).code}`, error)
  }
  if (text.length > MAX_FILE_BYTES) throw bad(path, `it is larger than ${MAX_FILE_BYTES} bytes`)
  const { parse } = await import('smol-toml')
  let document: Fields
  try {
    document = parse(text)
  } catch (error) {
    throw bad(path, `it is no TOML: ${(error as Error).message.split('\n', 1)[0]}`, error)
  }
  const hosts = document['host'] ?? {}
  if (!isFields(hosts)) throw bad(path, 'host must be tables, as [host."https://mirror.example.com"]')
  // Tables keep the order of the file.
  const entries = Object.entries(hosts)
  if (entries.length > MAX_MIRRORS) throw bad(path, `it has ${entries.length} mirrors, at most ${MAX_MIRRORS} are used`)
  return entries.flatMap(([name, value]) => {
    const wrong = (why: string): SnapshotterError => bad(path, `host ${JSON.stringify(name).slice(0, 200)}: ${why}`)
    if (!isFields(value)) throw wrong('it must be a table')
    const found = mirrorOf(name, value, {
      folder,
      wrong,
      onIgnored: (why) => onIgnored(`${path}: host ${JSON.stringify(name)}: ${why}`),
    })
    return found === undefined ? [] : [found]
  })
}

function bad(path: string, why: string, cause?: unknown): SnapshotterError {
  return new SnapshotterError('BAD_CONFIG', `cannot use ${path} of remote.mirrors_config.dir: ${why}`, { cause })
}

async function folderOf(directory: string, host: string): Promise<string | undefined> {
  // Of a reference that was parsed; a host with a slash would lead elsewhere.
  if (host === '' || /[/\0]/.test(host) || host.startsWith('.')) return undefined
  const hosts = new Set([normalHost(host), host])
  const names = [...hosts].flatMap((name) => (/:\d+$/.test(name) ? [name.replace(/:(\d+)$/, '_$1_'), name] : [name]))
  for (const name of [...names, '_default']) {
    const path = join(directory, name)
    if (
      await stat(path).then(
        (stats) => stats.isDirectory(),
        () => false,
      )
    )
      return path
  }
  return undefined
}

interface Context {
  readonly folder: string
  readonly wrong: (why: string) => SnapshotterError
  readonly onIgnored: (why: string) => void
}

function mirrorOf(name: string, of: Fields, { folder, wrong, onIgnored }: Context): MirrorHost | undefined {
  const capabilities = of['capabilities']
  if (Array.isArray(capabilities) && !capabilities.includes('pull')) return undefined
  const url = urlOf(name, of['override_path'] === true, wrong)
  if (url === undefined) {
    onIgnored('it is left out: with override_path, its path must end in /v2')
    return undefined
  }
  if (of['skip_verify'] === true)
    onIgnored('skip_verify has no effect; give its certificate as ca, or set skip_verify in the template of nydusd')
  if (of['client'] !== undefined) onIgnored('client certificates are not used')
  const pingUrl = of['ping_url'] ?? ''
  if (typeof pingUrl !== 'string' || (pingUrl !== '' && !/^https?:\/\//.test(pingUrl)))
    throw wrong('ping_url must begin with http:// or https://')
  return {
    url,
    caFiles: texts(of['ca'], () => wrong('ca must be a path or a list of paths')).map((path) => resolve(folder, path)),
    headers: headersOf(of['header'], wrong),
    healthCheckInterval: whole(of['health_check_interval'], 86_400, () =>
      wrong('health_check_interval must be seconds, 0 to 86400'),
    ),
    failureLimit: whole(of['failure_limit'], 255, () => wrong('failure_limit must be 0 to 255')),
    pingUrl,
  }
}

/** Undefined for a path that requests cannot be put behind. */
function urlOf(name: string, isWhole: boolean, wrong: (why: string) => SnapshotterError): string | undefined {
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(name) ? name : `https://${name}`)
  if (
    url === null ||
    !/^https?:$/.test(url.protocol) ||
    url.hostname === '' ||
    url.username !== '' ||
    url.search !== '' ||
    url.hash !== ''
  )
    throw wrong('it must be http(s)://HOST[:PORT][/PATH]')
  const path = url.pathname.replace(/\/+$/, '')
  // By default containerd appends /v2 unless it is there; with override_path the path is all of it.
  if (isWhole && !path.endsWith('/v2')) return undefined
  return `${url.origin}${path.replace(/\/v2$/, '')}`
}

function headersOf(value: unknown, wrong: (why: string) => SnapshotterError): Readonly<Record<string, string>> {
  if (value === undefined) return {}
  if (!isFields(value)) throw wrong('header must be a table')
  return Object.fromEntries(
    Object.entries(value).map(([name, given]) => {
      const [text = ''] = texts(given, () =>
        wrong(`header ${JSON.stringify(name).slice(0, 100)} must be a text or a list of texts`),
      )
      // The value may be a secret.
      if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || !/^[\t\x20-\x7e]*$/.test(text))
        throw wrong(`header ${JSON.stringify(name).slice(0, 100)} cannot be sent`)
      return [name, text]
    }),
  )
}

function texts(value: unknown, wrong: () => SnapshotterError): readonly string[] {
  const list: unknown[] = value === undefined ? [] : Array.isArray(value) ? value : [value]
  if (!list.every((text): text is string => typeof text === 'string' && text !== '')) throw wrong()
  return list
}

function whole(value: unknown, most: number, wrong: () => SnapshotterError): number | undefined {
  if (value === undefined) return undefined
  const number = typeof value === 'bigint' ? Number(value) : value
  if (typeof number !== 'number' || !Number.isInteger(number) || number < 0 || number > most) throw wrong()
  return number
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}
