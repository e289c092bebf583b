import { readFileSync } from 'node:fs'
import { type Backend, localfsBackend } from '../../backend/index.ts'
import { ConvertError } from '../../convert/index.ts'
import { ExitError } from '../output.ts'

const TYPES = ['oss', 's3', 'localfs'] as const

/** Where blobs are when not in the registry: the type, and its configuration as JSON text. */
export interface StorageFlags {
  readonly type: (typeof TYPES)[number]
  readonly config: string
}

/** Reads `--PREFIXbackend-type` and its kin; mistakes in the original's order and words. Undefined: blobs are in the registry. */
export function storageFlags(
  prefix: '' | 'source-' | 'target-',
  given: { readonly type?: string; readonly config?: string; readonly configFile?: string },
): StorageFlags | undefined {
  if (given.type === undefined || given.type === '') return undefined
  const type = TYPES.find((known) => known === given.type)
  if (type === undefined) throw new ExitError(1, `--${prefix}backend-type should be one of [${TYPES.join(' ')}]`)
  const { config = '', configFile = '' } = given
  if (config !== '' && configFile !== '')
    throw new ExitError(1, '--backend-config conflicts with --backend-config-file')
  const text = configFile === '' ? config : readText(configFile)
  if (text.trim() === '')
    throw new ExitError(1, `backend configuration is empty, please specify option '--${prefix}backend-config'`)
  return { type, config: text }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new ExitError(1, `parse backend config file: cannot read ${path}: ${(cause as NodeJS.ErrnoException).code}`, {
      cause,
    })
  }
}

/** The place itself; what reads buckets is loaded only for these. */
export async function openStorage({ type, config }: StorageFlags, flag: string): Promise<Backend> {
  const parsed = parseConfig(config, flag)
  if (type !== 'localfs') return await openBucket(type, parsed, flag)
  const dir = typeof parsed === 'object' && parsed !== null && 'dir' in parsed ? parsed.dir : undefined
  if (typeof dir !== 'string' || dir === '')
    throw new ConvertError('BAD_OPTION', `cannot use the configuration of ${flag} localfs: write {"dir": "FOLDER"}`)
  return localfsBackend({ dir })
}

/** The configuration is nydusd's table of that type. */
async function openBucket(type: 'oss' | 's3', table: unknown, flag: string): Promise<Backend> {
  const { blobSourceOf, openSource, parseConfig: parseDocument } = await import('../../daemon/config/index.ts')
  const document = JSON.stringify({ version: 2, backend: { type, [type]: table } })
  return openSource(blobSourceOf(parseDocument(document, flag).config)).backend
}

export function unsupportedStorage(type: string, flag: string): ConvertError {
  return new ConvertError(
    'UNSUPPORTED',
    `${flag} ${type} is not supported in this version: blobs are kept in the registry; leave the flag out`,
  )
}

/** JSON text from a flag. The text may hold secrets: no message shows it. */
export function parseConfig(config: string, flag: string): unknown {
  try {
    return JSON.parse(config)
  } catch {
    // The parser's message quotes the text.
    throw new ConvertError('BAD_OPTION', `cannot use the configuration of ${flag}: it is not JSON`)
  }
}
