import { parse as parseToml, TomlError } from 'smol-toml'
import * as v from 'valibot'
import { SnapshotterError } from '../errors.ts'
import { contradictions, oddities, type Remark } from './halves.ts'
import { nearestKey } from './nearest.ts'
import { outlineToml } from './outline.ts'
import { DEFAULT_CONTAINERD_ADDRESS, Document } from './schema.ts'
import { type Settings, settingsOf } from './settings.ts'

/** What the command line says; each overrides a key. */
export interface Flags {
  readonly root?: string
  readonly address?: string
  readonly nydusd?: string
  readonly nydusImage?: string
  readonly nydusdConfig?: string
  readonly nydusOverlayfsPath?: string
  readonly daemonMode?: string
  readonly fsDriver?: string
  readonly logLevel?: string
  readonly logToStdout?: boolean
  /** Flags of old versions. */
  readonly recoverPolicy?: string
  readonly enableStargz?: boolean
  readonly enableNydusOverlayfs?: boolean
}

const KEYS_OF_FLAGS: ReadonlyArray<readonly [keyof Flags, string, string]> = [
  ['root', '--root', 'root'],
  ['address', '--address', 'address'],
  ['nydusd', '--nydusd', 'daemon.nydusd_path'],
  ['nydusImage', '--nydus-image', 'daemon.nydusimage_path'],
  ['nydusdConfig', '--nydusd-config', 'daemon.nydusd_config'],
  ['nydusOverlayfsPath', '--nydus-overlayfs-path', 'snapshot.nydus_overlayfs_path'],
  ['daemonMode', '--daemon-mode', 'daemon_mode'],
  ['fsDriver', '--fs-driver', 'daemon.fs_driver'],
  ['logLevel', '--log-level', 'log.level'],
  ['logToStdout', '--log-to-stdout', 'log.log_to_stdout'],
  ['recoverPolicy', '--recover-policy', 'daemon.recover_policy'],
  ['enableStargz', '--enable-stargz', 'experimental.enable_stargz'],
  ['enableNydusOverlayfs', '--enable-nydus-overlayfs', 'snapshot.enable_nydus_overlayfs'],
]
/** Longer documents are refused. */
export const MAX_DOCUMENT_BYTES = 1 << 20
/** Values in messages are cut at this length. */
const SHOWN_LENGTH = 60

type Table = Readonly<Record<string, unknown>>

/**
 * Reads a configuration: TOML with `version = 1`. Defaults < document < flags; a key that is present wins, whatever its value. `name` says
 * in messages which document it is. Throws SnapshotterError 'BAD_CONFIG', which names every wrong key, its line, and what to write.
 */
export function parseSettings(toml: string, flags: Flags = {}, name = 'the configuration'): Settings {
  const places = new Places(toml)
  const document = withFlags(tableOf(toml, name), flags, places)
  const known = knownKeys(Document, '')
  const result = v.safeParse(Document, document, { abortPipeEarly: true })
  if (!result.success)
    throw bad(
      name,
      result.issues.map((issue) => complaint(issue, places)),
    )
  const wrong = contradictions(result.output)
  if (wrong.length > 0)
    throw bad(
      name,
      wrong.map((remark) => sentence(remark, places)),
    )
  const warnings = [
    ...unknownKeys(document, known, '').map((key) => unknownKey(key, known, places)),
    ...oddities(result.output).map((remark) => sentence(remark, places)),
  ]
  return settingsOf(result.output, DEFAULT_CONTAINERD_ADDRESS, warnings)
}

function tableOf(toml: string, name: string): Table {
  if (Buffer.byteLength(toml) > MAX_DOCUMENT_BYTES)
    throw bad(name, [`it has ${Buffer.byteLength(toml)} bytes, more than ${MAX_DOCUMENT_BYTES}`])
  try {
    return parseToml(toml)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const [what = ''] = error.message.replace(/^Invalid TOML document: /, '').split('\n')
    throw bad(name, [`line ${error.line}, column ${error.column}: it is no TOML: ${what}`], error)
  }
}

/** Where keys come from, for messages. */
class Places {
  readonly #lines = new Map<string, number>()
  readonly #flags = new Map<string, string>()

  constructor(toml: string) {
    if (Buffer.byteLength(toml) > MAX_DOCUMENT_BYTES) return
    for (const { path, line } of outlineToml(toml)) {
      const key = path.join('.')
      if (!this.#lines.has(key)) this.#lines.set(key, line)
    }
  }

  addFlag(key: string, flag: string): void {
    this.#flags.set(key, flag)
  }

  /** `line 3: `, or the flag; '' for what stands nowhere. */
  of(key: string): string {
    const flag = this.#flags.get(key)
    if (flag !== undefined) return `${flag}: `
    const line = this.#lines.get(key)
    return line === undefined ? '' : `line ${line}: `
  }
}

function withFlags(document: Table, flags: Flags, places: Places): Table {
  const copy = structuredClone(document) as Record<string, unknown>
  for (const [flag, name, key] of KEYS_OF_FLAGS) {
    const value = flags[flag]
    if (value === undefined) continue
    const path = key.split('.')
    const last = path.pop() ?? key
    let at: Record<string, unknown> = copy
    for (const part of path) {
      at[part] ??= {}
      if (!isTable(at[part])) return copy // the check tells that this must be a table
      at = at[part]
    }
    at[last] = value
    places.addFlag(key, name)
  }
  return copy
}

function complaint(issue: v.BaseIssue<unknown>, places: Places): string {
  const key = issue.path?.map((item) => String(item.key)).join('.') ?? ''
  const value = issue.path?.at(-1)?.value
  if (key === 'version' && value === undefined) return '"version" is missing; write version = 1 as the first line'
  if (key === 'version') return `${places.of(key)}unsupported configuration version ${shown(value)}; write version = 1`
  return `${places.of(key)}"${key}" is ${shown(value)}, wanted is ${issue.message}`
}

function shown(value: unknown): string {
  if (value instanceof Date) return 'a date'
  if (isTable(value)) return 'a table'
  const text = JSON.stringify(value) ?? String(value)
  return text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)}… (${text.length} characters)` : text
}

function sentence({ key, text }: Remark, places: Places): string {
  return `${places.of(key)}"${key}" ${text}`
}

function bad(name: string, problems: readonly string[], cause?: unknown): SnapshotterError {
  const [first = ''] = problems
  const what =
    problems.length === 1 ? first : `${problems.length} keys are wrong${problems.map((one) => `\n  ${one}`).join('')}`
  return new SnapshotterError('BAD_CONFIG', `cannot use ${name}: ${what}`, { cause })
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

/** Every key of the schema with its path; tables too. */
export function knownKeys(schema: unknown, at: string): string[] {
  const entries = entriesOf(schema)
  return Object.keys(entries ?? {}).flatMap((key) => {
    const path = at === '' ? key : `${at}.${key}`
    return [path, ...knownKeys(entries?.[key], path)]
  })
}

function entriesOf(schema: unknown): Table | undefined {
  if (!isTable(schema)) return undefined
  if (isTable(schema['entries'])) return schema['entries']
  return schema['wrapped'] === undefined ? undefined : entriesOf(schema['wrapped'])
}

function unknownKeys(value: unknown, known: readonly string[], at: string): string[] {
  if (!isTable(value)) return []
  return Object.keys(value).flatMap((key) => {
    const path = at === '' ? key : `${at}.${key}`
    return known.includes(path) ? unknownKeys(value[key], known, path) : [path]
  })
}

function unknownKey(key: string, known: readonly string[], places: Places): string {
  const near = nearestKey(key, known)
  return `${places.of(key)}unknown key ${JSON.stringify(key)} is ignored${near === undefined ? '' : `; did you mean "${near}"?`}`
}
