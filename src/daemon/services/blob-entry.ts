import { BodyError } from '../api/bodies.ts'
import { parseConfig } from '../config/document.ts'
import type { Config } from '../config/schema.ts'
import { messageOf } from '../errors.ts'

/** A bootstrap that is registered, and where the blobs of its image are. Source: docs/configuration.md, "Blob cache entries". */
export interface BlobEntry {
  readonly type: string
  readonly id: string
  /** Empty = none. */
  readonly domainId: string
  readonly config: Config
  /** Path of the bootstrap; empty when nothing was said. */
  readonly metadataPath: string
}

type Fields = Readonly<Record<string, unknown>>

const NO_PREFETCH = { enable: false, threads_count: 0, merging_size: 0, bandwidth_rate: 0 }

/** An entry in either form; `config_v2` counts when both are there. Throws BodyError, with upstream's words for the API. */
export function parseBlobEntry(value: unknown): BlobEntry {
  if (!isTable(value)) throw new BodyError('ParseBody(Error("invalid type: expected a map", line: 1, column: 1))')
  const { config: legacy, config_v2: current } = value
  const told = isTable(current) ? currentForm(current) : isTable(legacy) ? legacyForm(legacy) : undefined
  const entry = { type: text(value, 'type'), id: text(value, 'id'), domainId: text(value, 'domain_id', '') }
  if (told === undefined) throw new BodyError('BadRequest')
  try {
    return { ...entry, config: parseConfig(JSON.stringify(told.document), 'of a blob').config, metadataPath: told.path }
  } catch (error) {
    throw Object.assign(new BodyError('BadRequest'), { message: messageOf(error) })
  }
}

interface Told {
  readonly document: Fields
  readonly path: string
}

function currentForm(of: Fields): Told {
  const { metadata_path: _path, ...document } = of
  return { document: { ...document, version: 2 }, path: text(of, 'metadata_path', '') }
}

function legacyForm(of: Fields): Told {
  const prefetch = of['prefetch_config'] ?? NO_PREFETCH
  if (!isTable(prefetch)) throw new BodyError('BadRequest')
  for (const key of Object.keys(NO_PREFETCH))
    if (prefetch[key] === undefined)
      throw new BodyError(`ParseBody(Error("missing field \`${key}\`", line: 1, column: 1))`)
  return {
    document: {
      device: {
        id: of['id'],
        backend: { type: of['backend_type'], config: of['backend_config'] },
        external_backends: of['external_backends'],
        cache: { type: of['cache_type'], config: of['cache_config'] },
      },
      mode: 'direct',
      fs_prefetch: { ...prefetch, prefetch_all: true },
    },
    path: text(of, 'metadata_path', ''),
  }
}

function text(of: Fields, name: string, fallback?: string): string {
  const value = of[name] ?? fallback
  if (typeof value === 'string') return value
  const what = value === undefined ? `missing field \`${name}\`` : `invalid type of \`${name}\`, expected a string`
  throw new BodyError(`ParseBody(Error("${what}", line: 1, column: 1))`)
}

function isTable(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
