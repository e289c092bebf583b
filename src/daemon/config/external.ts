import * as v from 'valibot'
import { DaemonError } from '../errors.ts'
import { BACKENDS, type Config, NO_BACKENDS } from './schema.ts'
import { blobSourceOf, type MountSettings } from './settings.ts'

type External = Config['external_backends'][number]

const FLAGS = new Set(['skip_verify', 'disable_gpt'])
const NUMBERS = new Set(['timeout', 'connect_timeout', 'retry_limit'])
const LISTS = new Set(['alt_dirs', 'ca_cert_files'])

/** Where an entry of `external_backends` says that blobs are. Its values are text, and those of `patch` go before those of `config`. Throws DaemonError 'BAD_CONFIG' or 'UNSUPPORTED'. */
export function externalSourceOf(entry: External, position: number): MountSettings['source'] {
  const name = `external_backends[${position}]`
  if (!isType(entry.type))
    throw bad(
      `${name}.type`,
      `${JSON.stringify(entry.type.slice(0, 100))} is none of ${Object.keys(BACKENDS).join(', ')}`,
    )
  const values = Object.entries({ ...entry.config, ...entry.patch }).map(([key, text]) => [key, valueOf(key, text)])
  const parsed = v.safeParse(BACKENDS[entry.type], Object.fromEntries(values))
  // The key only: values may be secret.
  if (!parsed.success) throw bad(name, `"${String(parsed.issues[0].path?.[0]?.key)}" is missing or wrong`)
  return blobSourceOf({ backend: { type: entry.type, ...NO_BACKENDS, [entry.type]: parsed.output } } as Config)
}

function isType(type: string): type is keyof typeof BACKENDS {
  return Object.hasOwn(BACKENDS, type)
}

/** What is no flag stays text, which the schema refuses. */
function valueOf(key: string, text: string): unknown {
  if (FLAGS.has(key) && (text === 'true' || text === 'false')) return text === 'true'
  if (NUMBERS.has(key)) return Number(text)
  return LISTS.has(key) ? text.split(',') : text
}

function bad(key: string, what: string): DaemonError {
  return new DaemonError('BAD_CONFIG', `cannot use the configuration: "${key}": ${what}`, {
    wire: 'RAFS failed to handle request, Failed to load config: failed to parse configuration information`',
  })
}
