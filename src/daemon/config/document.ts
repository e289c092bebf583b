import { parse as parseToml } from 'smol-toml'
import * as v from 'valibot'
import { DaemonError } from '../errors.ts'
import { type Config, ConfigV2 } from './schema.ts'
import { ConfigV1, fromV1 } from './v1.ts'

/** Documents longer than this are refused. */
export const MAX_DOCUMENT_BYTES = 1 << 20

/** A document that was understood, and the keys in it that nobody knows. */
export interface ParsedConfig {
  readonly config: Config
  readonly unknownKeys: readonly string[]
}

/**
 * Reads a configuration document: JSON or TOML with `version = 2`, else JSON of version 1. `name` says in messages which one it is.
 * Throws DaemonError 'BAD_CONFIG', which names the first wrong key (never a value: there may be secrets in it).
 */
export function parseConfig(document: string, name: string): ParsedConfig {
  if (document.length > MAX_DOCUMENT_BYTES)
    throw bad(name, `it has ${document.length} bytes, more than ${MAX_DOCUMENT_BYTES}`)
  const json = tryJson(document)
  const value = json === undefined ? tryToml(document) : json
  if (!isTable(value)) throw bad(name, 'it is neither a JSON object nor TOML')
  if (json === undefined || typeof value['version'] === 'number') {
    return { config: check(ConfigV2, value, name), unknownKeys: unknownKeys(ConfigV2, value, '') }
  }
  return { config: fromV1(check(ConfigV1, value, name)), unknownKeys: unknownKeys(ConfigV1, value, '') }
}

function check<T extends v.GenericSchema>(schema: T, value: unknown, name: string): v.InferOutput<T> {
  const result = v.safeParse(schema, value)
  if (result.success) return result.output
  const [issue] = result.issues
  const key = issue.path?.map((item) => String(item.key)).join('.') ?? ''
  const wanted = issue.expected ?? issue.type
  throw bad(
    name,
    `${key === '' ? 'the document' : `"${key}"`} is ${issue.received === 'undefined' ? 'missing' : 'wrong'}, expected ${wanted}`,
  )
}

function bad(name: string, what: string): DaemonError {
  return new DaemonError(
    'BAD_CONFIG',
    `cannot use configuration ${name}: ${what}; docs/configuration.md lists all keys`,
    {
      wire: 'RAFS failed to handle request, Failed to load config: failed to parse configuration information`',
    },
  )
}

function tryJson(document: string): unknown {
  try {
    return JSON.parse(document)
  } catch {
    return undefined // no JSON: the caller tries TOML
  }
}

function tryToml(document: string): unknown {
  try {
    return parseToml(document)
  } catch {
    return undefined // neither: the caller says so
  }
}

type Table = Readonly<Record<string, unknown>>

/** containerd-nydus-grpc writes it into each configuration; it is of times when localfs had it. */
const ALWAYS_WRITTEN = new Set(['device.backend.config.readahead'])

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Paths of keys that no schema has: typing errors, mostly, which would silently do nothing. */
function unknownKeys(schema: unknown, value: unknown, at: string): string[] {
  const entries = entriesOf(schema, value)
  if (entries === undefined || !isTable(value)) return []
  return Object.entries(value).flatMap(([key, inner]) => {
    const path = at === '' ? key : `${at}.${key}`
    const known = Object.hasOwn(entries, key) ? entries[key] : undefined
    if (known === undefined && inner === false && ALWAYS_WRITTEN.has(path)) return []
    return known === undefined ? [path] : unknownKeys(known, inner, path)
  })
}

/** The keys of an object schema, seen through `optional`, `nullable` and unions (where the first fitting option counts). */
function entriesOf(schema: unknown, value: unknown): Table | undefined {
  if (!isTable(schema)) return undefined
  if (isTable(schema['entries'])) return schema['entries']
  if (schema['wrapped'] !== undefined) return entriesOf(schema['wrapped'], value)
  if (!Array.isArray(schema['options'])) return undefined
  const fitting = schema['options'].find((option: v.GenericSchema) => typeof option === 'object' && v.is(option, value))
  return entriesOf(fitting, value)
}
