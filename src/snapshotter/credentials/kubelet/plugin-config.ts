import { readFile } from 'node:fs/promises'
import { SnapshotterError } from '../../errors.ts'
import { goDuration } from '../../settings/index.ts'

/** One plugin of the kubelet's `CredentialProviderConfig`. */
export interface PluginConfig {
  /** Its file in the folder of plugins. */
  readonly name: string
  readonly matchImages: readonly string[]
  readonly defaultCacheMs: number
  readonly args: readonly string[]
  readonly env: readonly { readonly name: string; readonly value: string }[]
}

/** The only version of the exchange with plugins that this speaks, and that is not on its way out. */
export const EXCHANGE_VERSION = 'credentialprovider.kubelet.k8s.io/v1'
const MAX_FILE_BYTES = 4 << 20
const MAX_PLUGINS = 100
const MAX_PATTERNS = 10_000

type Fields = Readonly<Record<string, unknown>>

/**
 * Reads the file, YAML or JSON. `onSkipped` is told of plugins that only the kubelet itself can use (they want a pod's service account token). Throws
 * SnapshotterError 'BAD_CONFIG' that names file, plugin and field.
 */
export async function readPluginConfig(
  path: string,
  onSkipped: (line: string) => void,
): Promise<readonly PluginConfig[]> {
  const bad = (why: string, cause?: unknown): SnapshotterError =>
    new SnapshotterError('BAD_CONFIG', `cannot use remote.auth.credential_provider_config ${path}: ${why}`, { cause })
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw bad(
      `${(error as NodeJS.ErrnoException).code ?? 'it cannot be read'}; it is the kubelet's --image-credential-provider-config`,
      error,
    )
  }
  if (text.length > MAX_FILE_BYTES) throw bad(`it is larger than ${MAX_FILE_BYTES} bytes`)
  const document = await parseYaml(text, bad)
  const kind = document['kind']
  if (kind !== undefined && kind !== 'CredentialProviderConfig')
    throw bad(`its kind is ${JSON.stringify(kind)?.slice(0, 100)}, wanted CredentialProviderConfig`)
  const providers = document['providers']
  if (!Array.isArray(providers) || providers.length === 0) throw bad('providers must list at least one plugin')
  if (providers.length > MAX_PLUGINS) throw bad(`it lists ${providers.length} plugins, at most ${MAX_PLUGINS} are used`)
  const names = new Set<string>()
  const plugins: PluginConfig[] = []
  for (const [index, provider] of providers.entries()) {
    const plugin = parsePlugin(provider, (why) => bad(`providers[${index}]: ${why}`))
    if (names.has(plugin.name)) throw bad(`providers[${index}]: there are two named ${JSON.stringify(plugin.name)}`)
    names.add(plugin.name)
    if (needsServiceAccount(provider as Fields))
      onSkipped(
        `credential provider ${plugin.name} is left out: it wants service account tokens, which only the kubelet has`,
      )
    else plugins.push(plugin)
  }
  return plugins
}

/** Both are read as YAML: JSON is a part of it. Aliases are not followed without end: the parser counts them. */
async function parseYaml(text: string, bad: (why: string, cause?: unknown) => SnapshotterError): Promise<Fields> {
  const { parse } = await import('yaml')
  let document: unknown
  try {
    document = parse(text)
  } catch (error) {
    throw bad(`it is neither YAML nor JSON: ${(error as Error).message.split('\n', 1)[0]?.slice(0, 200)}`, error)
  }
  if (!isFields(document)) throw bad('it is not an object')
  return document
}

function parsePlugin(value: unknown, bad: (why: string) => SnapshotterError): PluginConfig {
  if (!isFields(value)) throw bad('it is not an object')
  const { name, apiVersion } = value
  if (typeof name !== 'string' || name === '') throw bad('name is required')
  if (/[\s/\\\0]/.test(name) || name === '.' || name === '..')
    throw bad(`name ${JSON.stringify(name).slice(0, 100)} must be a file's name, without blanks and slashes`)
  if (apiVersion !== EXCHANGE_VERSION) throw bad(`apiVersion of ${name} must be ${EXCHANGE_VERSION}`)
  const matchImages = texts(value['matchImages'], MAX_PATTERNS)
  if (matchImages === undefined || matchImages.length === 0 || matchImages.includes(''))
    throw bad(`matchImages of ${name} must list patterns such as "*.example.com"`)
  const duration = value['defaultCacheDuration']
  const defaultCacheMs = typeof duration === 'string' ? goDuration(duration) : Number.NaN
  if (Number.isNaN(defaultCacheMs)) throw bad(`defaultCacheDuration of ${name} must be a duration such as "10m"`)
  const args = texts(value['args'] ?? [], MAX_PATTERNS)
  if (args === undefined) throw bad(`args of ${name} must be a list of texts`)
  return { name, matchImages, defaultCacheMs, args, env: parseEnv(value['env'] ?? [], name, bad) }
}

function parseEnv(value: unknown, plugin: string, bad: (why: string) => SnapshotterError): PluginConfig['env'] {
  if (!Array.isArray(value)) throw bad(`env of ${plugin} must be a list`)
  const names = new Set<string>()
  return value.map((entry: unknown) => {
    const { name, value: text = '' } = isFields(entry) ? entry : {}
    if (typeof name !== 'string' || !/^[^=\0]+$/.test(name) || typeof text !== 'string' || text.includes('\0'))
      throw bad(`env of ${plugin} must have entries with name and value`)
    if (names.has(name)) throw bad(`env of ${plugin} sets ${JSON.stringify(name).slice(0, 100)} twice`)
    names.add(name)
    return { name, value: text }
  })
}

function needsServiceAccount(value: Fields): boolean {
  const attributes = value['tokenAttributes']
  return isFields(attributes) && attributes['requireServiceAccount'] !== false
}

function texts(value: unknown, most: number): readonly string[] | undefined {
  if (!Array.isArray(value) || value.length > most) return undefined
  return value.every((text): text is string => typeof text === 'string' && !text.includes('\0')) ? value : undefined
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
