import { readFile } from 'node:fs/promises'

type Fields = Readonly<Record<string, unknown>>

/**
 * The registry's table in a document of nydusd's configuration: `device.backend.config` of version 1, `backend.registry` of version 2, `config.backend_config` of fscache. Empty when the document
 * is none, or has another backend.
 */
export function registryConfig(document: unknown): Fields {
  const { device, backend, config } = fieldsOf(document)
  const first = fieldsOf(fieldsOf(device)['backend'])
  for (const [type, value] of [
    [first['type'], first['config']],
    [fieldsOf(backend)['type'], fieldsOf(backend)['registry']],
    [fieldsOf(config)['backend_type'], fieldsOf(config)['backend_config']],
  ])
    if (type === 'registry') return fieldsOf(value)
  return {}
}

/** Does a daemon with this configuration keep chunks in its cache as they are: neither compressed nor encrypted? */
export function keepsPlainChunks(document: unknown): boolean {
  const { device, cache: second } = fieldsOf(document)
  const first = fieldsOf(fieldsOf(device)['cache'])
  return [first, fieldsOf(first['config']), fieldsOf(second), fieldsOf(fieldsOf(second)['filecache'])].every(
    (table) =>
      table['compressed'] !== true && table['cache_compressed'] !== true && table['enable_encryption'] !== true,
  )
}

/** The template of what nydusd is configured with. What cannot be read is told, with better words, when images are started, and is empty here. */
export async function readTemplate(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'))
  } catch {
    return {}
  }
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {} // null and lists have none
}
