import { readFile } from 'node:fs/promises'
import { Http } from '../../registry/index.ts'
import { askProgram } from '../ask-program.ts'
import { JoinedWork } from '../joined-work.ts'
import { registryConfig } from '../registry-config.ts'
import { type MirrorHost, readHostsFile } from './hosts-file.ts'
import { deadlineSignal } from '../../kernel/index.ts'

export interface MirrorsParts {
  /** `remote.mirrors_config.dir`. */
  readonly directory: string
  /** The nydusd that reads with them. */
  readonly nydusdPath: string
  /** The template of its configuration, parsed: certificates that it trusts stay. */
  readonly template: unknown
  readonly log: { warn(line: string): void }
}

/** Keys of nydusd's registry backend. */
export type MirrorKeys = Readonly<Record<string, unknown>>

const PING_MS = 3000
const VERSION_MS = 30_000
const MAX_VERSION_BYTES = 65_536

/**
 * Mirrors of registries, in containerd's files. Our nydusd gets all of them, asks them first and the registry itself when they fail; mirrors whose `ping_url` does not answer come last. The original's knows no mirrors: it gets the
 * first one that answers in the registry's place, as the original's snapshotter does it. Files are read for each image.
 */
export class Mirrors {
  readonly #parts: MirrorsParts
  readonly #asked = new JoinedWork<MirrorKeys | undefined>()
  #knowsMirrors: Promise<boolean> | undefined
  readonly #warned = new Set<string>()

  constructor(parts: MirrorsParts) {
    this.#parts = parts
  }

  /** For the registry `host`; undefined when it has none. Throws SnapshotterError 'BAD_CONFIG'. */
  async find(host: string, signal: AbortSignal): Promise<MirrorKeys | undefined> {
    return await this.#asked.do(host, (all) => this.#find(host, all), signal)
  }

  async #find(host: string, signal: AbortSignal): Promise<MirrorKeys | undefined> {
    const hosts = await readHostsFile(this.#parts.directory, host, (line) => this.#warnOnce(line))
    if (hosts.length === 0) return undefined
    const answers = await Promise.all(hosts.map((mirror) => isWell(mirror, signal)))
    const well = hosts.filter((_, index) => answers[index] === true)
    const caFiles = [...new Set([...this.#trusted(), ...hosts.flatMap((mirror) => mirror.caFiles)])]
    const ca = caFiles.length === 0 ? {} : { ca_cert_files: caFiles }
    this.#knowsMirrors ??= isOurs(this.#parts.nydusdPath)
    if (await this.#knowsMirrors) {
      const ill = hosts.filter((mirror) => !well.includes(mirror))
      return { mirrors: [...well, ...ill].map(keysOf), ...ca }
    }
    const [first] = well
    if (first === undefined) return undefined
    const url = new URL(first.url)
    if (url.pathname !== '/') this.#warnOnce(`mirror ${first.url}: its path has no effect with this nydusd`)
    return { host: url.host, scheme: url.protocol.slice(0, -1), ...ca }
  }

  #trusted(): readonly string[] {
    const files = registryConfig(this.#parts.template)['ca_cert_files']
    return Array.isArray(files) ? files.filter((file) => typeof file === 'string') : []
  }

  /** Files are read for each image: what is wrong with them is said once. */
  #warnOnce(line: string): void {
    if (this.#warned.has(line) || this.#warned.size >= 1000) return
    this.#warned.add(line)
    this.#parts.log.warn(line)
  }
}

function keysOf({ url, headers, failureLimit, healthCheckInterval, pingUrl }: MirrorHost): MirrorKeys {
  return {
    host: url,
    headers,
    ...(failureLimit === undefined ? {} : { failure_limit: failureLimit }),
    ...(healthCheckInterval === undefined ? {} : { health_check_interval: healthCheckInterval }),
    ...(pingUrl === '' ? {} : { ping_url: pingUrl }),
  }
}

/** Does its `ping_url` answer with success in time? One without is taken to be well. */
async function isWell({ pingUrl, caFiles, headers }: MirrorHost, signal: AbortSignal): Promise<boolean> {
  const url = pingUrl === '' ? null : URL.parse(pingUrl)
  if (url === null) return pingUrl === ''
  const limited = AbortSignal.any([signal, deadlineSignal(PING_MS)])
  let http: Http | undefined
  try {
    const ca = await Promise.all(caFiles.map((path) => readFile(path, 'utf8')))
    http = new Http({
      connectionsPerHost: 1,
      connectTimeoutMs: PING_MS,
      headersTimeoutMs: PING_MS,
      bodyTimeoutMs: PING_MS,
      ca: ca.length === 0 ? undefined : ca.join('\n'),
      skipVerify: false,
    })
    const answer = await http.request({ method: 'GET', url, headers, signal: limited })
    answer.discard()
    return answer.status >= 200 && answer.status < 300
  } catch {
    signal.throwIfAborted()
    return false // whatever the reason: it is not well now
  } finally {
    await http?.close()
  }
}

/** Ours tells in its version what it runs on. When it cannot be asked, its start will fail with the reason. */
async function isOurs(path: string): Promise<boolean> {
  const never = new AbortController().signal
  const call = {
    command: path,
    args: ['--version'],
    env: process.env,
    input: '',
    timeoutMs: VERSION_MS,
    maxBytes: MAX_VERSION_BYTES,
    signal: never,
  }
  return await askProgram(call).then(
    (text) => text.includes('nydus-node'),
    () => true,
  )
}
