import { realpath, stat } from 'node:fs/promises'
import { loadBootstrap } from '../bootstrap-file.ts'
import { DaemonError } from '../errors.ts'
import type { BlobEntry } from './blob-entry.ts'
import { complete, type DiskSource } from './open-disk.ts'

/** A bootstrap, or a blob of its image; blobs are shared within a domain. */
interface Registered {
  readonly key: string
  /** Keys of its blobs; undefined for a blob. */
  readonly blobs: readonly string[] | undefined
  /** What to open of a bootstrap. */
  readonly source: DiskSource | undefined
  /** Bootstraps that use a blob. */
  users: number
}

/** Which bootstraps and blobs drivers of the kernel may ask for, by `domain/id`. Registering a bootstrap registers its blobs; they go with the last bootstrap of the domain that has them. */
export class BlobRegistry {
  readonly #entries = new Map<string, Registered>()
  #turn: Promise<unknown> = Promise.resolve()

  /** Keys, sorted. */
  get keys(): string[] {
    return [...this.#entries.keys()].sort()
  }

  /** Throws DaemonError, with upstream's words for the API; then nothing has changed. */
  add(entry: BlobEntry): Promise<void> {
    const added = this.#turn.then(() => this.#add(entry))
    this.#turn = added.catch(() => undefined) // the caller got it; the next one goes on
    return added
  }

  /** The bootstrap of that key; undefined when there is none. The same object as long as it is registered. */
  bootstrap(key: string): DiskSource | undefined {
    return this.#entries.get(key)?.source
  }

  /** The bootstraps whose images have the blob of that key; none when it is not registered. */
  usersOf(key: string): DiskSource[] {
    if (!this.#entries.has(key)) return []
    const users = [...this.#entries.values()].filter(({ blobs }) => blobs?.includes(key) === true)
    return users.flatMap(({ source }) => (source === undefined ? [] : [source]))
  }

  /** Without `id` everything of a domain. Throws DaemonError 'NOT_FOUND'. */
  remove(domain: string, id: string): void {
    if (id === '' && domain !== '') {
      for (const key of this.#entries.keys()) if (key.startsWith(`${domain}/`)) this.#entries.delete(key)
      return
    }
    const key = keyOf(domain, id)
    const found = this.#entries.get(key)
    if (found === undefined) throw refused('NOT_FOUND', 'cache entry not found')
    for (const blob of found.blobs ?? [key]) this.#release(blob)
    if (found.blobs !== undefined) this.#entries.delete(key)
  }

  async #add({ type, id, domainId, config, metadataPath }: BlobEntry): Promise<void> {
    if (type !== 'bootstrap') throw refused('BAD_REQUEST', `invalid blob cache entry, type ${JSON.stringify(type)}`)
    if (id.includes('/')) throw refused('BAD_REQUEST', '`blob_id` for meta blob is invalid')
    if (domainId.includes('/')) throw refused('BAD_REQUEST', '`domain_id` for meta blob is invalid')
    await checkWorkDirectory(config.cache)
    const path = await bootstrapFile(metadataPath)
    const { bootstrap } = await loadBootstrap(path)
    if (bootstrap.version === 5) throw refused('BAD_IMAGE', 'RAFSv5 image is not supported')
    const key = keyOf(domainId, id)
    if (this.#entries.has(key)) throw refused('EXISTS', 'bootstrap blob already exists')
    const blobs = [...new Set(bootstrap.blobs.map((blob) => keyOf(domainId, blob.id)))]
    const source = { bootstrap: path, config: complete(withoutCache(config)), isKeptElsewhere: true }
    this.#entries.set(key, { key, blobs, users: 1, source })
    for (const blob of blobs) {
      const known = this.#entries.get(blob)
      if (known === undefined) this.#entries.set(blob, { key: blob, blobs: undefined, users: 1, source: undefined })
      else known.users++
    }
  }

  #release(key: string): void {
    const blob = this.#entries.get(key)
    if (blob === undefined || blob.blobs !== undefined) return
    blob.users--
    if (blob.users === 0) this.#entries.delete(key)
  }
}

/** Data is kept in the kernel's cache; another one beside it would have it twice. */
function withoutCache(config: BlobEntry['config']): BlobEntry['config'] {
  return config.cache === null ? config : { ...config, cache: { ...config.cache, type: '' } }
}

async function bootstrapFile(path: string): Promise<string> {
  if (path === '') throw refused('BAD_REQUEST', '`config.metadata_path` for meta blob is empty')
  const real = await realpath(path).catch(() => undefined)
  if (real === undefined) throw refused('BAD_REQUEST', `\`config.metadata_path=${path}\` for meta blob is invalid`)
  if (!(await stat(real)).isFile()) throw refused('BAD_REQUEST', '`config.metadata_path` for meta blob is not a file')
  return real
}

async function checkWorkDirectory(cache: BlobEntry['config']['cache']): Promise<void> {
  const directory = cache?.type === 'fscache' ? cache.fscache?.work_dir : cache?.filecache?.work_dir
  if (directory === undefined) throw refused('BAD_CONFIG', 'unknown cache type')
  const found = await stat(directory).catch(() => undefined)
  if (found === undefined) throw refused('BAD_CONFIG', '`config.cache_config.work_dir` is invalid')
  if (!found.isDirectory()) throw refused('BAD_CONFIG', '`config.cache_config.work_dir` is not a directory')
}

function keyOf(domain: string, id: string): string {
  return domain === '' ? id : `${domain}/${id}`
}

function refused(code: 'NOT_FOUND' | 'BAD_REQUEST' | 'BAD_CONFIG' | 'BAD_IMAGE' | 'EXISTS', what: string): DaemonError {
  return new DaemonError(code, `blob_cache: ${what}`)
}
