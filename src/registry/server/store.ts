import { link, mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Digest } from '../digest.ts'
import { digestAlgorithm, digestHex, parseDigest } from '../digest.ts'
import { isRepositoryName, isTag } from '../reference.ts'
import { errno, syncFolder, unlessAbsent, writeDurably } from './durable.ts'
import { SpecError } from './spec-error.ts'

export interface StoredManifest {
  readonly digest: Digest
  readonly mediaType: string
  readonly bytes: Buffer
}

/**
 * The registry's folder:
 *
 *     blobs/sha256/ab/abcd…                          every blob once
 *     repositories/NAME/_blobs/sha256/abcd…          the same file (hard link): the repository has it
 *     repositories/NAME/_manifests/sha256/abcd…      bytes of a manifest; beside it `.type`, its media type, written first
 *     repositories/NAME/_tags/TAG                    digest in text
 *     repositories/NAME/_referrers/sha256-abcd…/sha256-ef01…   empty: the second manifest names the first as its subject
 *     uploads/UUID                                   sessions; emptied at start
 *
 * Parts of names never begin with `_`, so that a repository cannot lie in another one's folders. Everything that becomes part of a path was
 * checked by `checkName`, `isTag` or `parseDigest`.
 */
export class Store {
  readonly #root: string

  private constructor(root: string) {
    this.#root = root
  }

  static async open(root: string): Promise<Store> {
    const store = new Store(root)
    await rm(store.uploads, { recursive: true, force: true })
    await mkdir(store.uploads, { recursive: true })
    await mkdir(join(root, 'repositories'), { recursive: true })
    return store
  }

  get uploads(): string {
    return join(this.#root, 'uploads')
  }

  /** Path and size of a blob that the repository has; undefined when it has not. */
  async blob(name: string, digest: Digest): Promise<{ path: string; size: number } | undefined> {
    const path = this.#blobLink(name, digest)
    const found = await unlessAbsent(stat(path))
    return found === undefined ? undefined : { path, size: found.size }
  }

  /** Gives a finished, verified and synced file its second name (the caller removes the first). What is there already stays: equal digest, equal bytes. */
  async adoptBlob(name: string, digest: Digest, file: string): Promise<void> {
    const shared = this.#sharedBlob(digest)
    await mkdir(dirname(shared), { recursive: true })
    try {
      await link(file, shared)
    } catch (error) {
      if (errno(error) !== 'EEXIST') throw error
    }
    await syncFolder(dirname(shared))
    await this.#linkBlob(name, digest)
  }

  /** True when `from` has it and now `name` has it too. */
  async mountBlob(name: string, digest: Digest, from: string): Promise<boolean> {
    if ((await this.blob(from, digest)) === undefined) return false
    return this.#linkBlob(name, digest)
  }

  /** False when the repository had no such blob. The last repository takes the bytes with it. */
  async deleteBlob(name: string, digest: Digest): Promise<boolean> {
    const path = this.#blobLink(name, digest)
    if ((await unlessAbsent(rm(path).then(() => true))) === undefined) return false
    const shared = this.#sharedBlob(digest)
    const left = await unlessAbsent(stat(shared))
    if (left?.nlink === 1) await rm(shared, { force: true })
    return true
  }

  async hasRepository(name: string): Promise<boolean> {
    const entries = (await unlessAbsent(readdir(this.#repository(name)))) ?? []
    return entries.some((entry) => entry.startsWith('_'))
  }

  async manifest(name: string, ref: string): Promise<StoredManifest | undefined> {
    const digest = await this.manifestDigest(name, ref)
    if (digest === undefined) return undefined
    const path = this.#manifestPath(name, digest)
    const bytes = await unlessAbsent(readFile(path))
    return bytes === undefined ? undefined : { digest, bytes, mediaType: await readFile(`${path}.type`, 'utf8') }
  }

  /** What a tag points to, or the digest itself. It need not exist. */
  async manifestDigest(name: string, ref: string): Promise<Digest | undefined> {
    if (ref.includes(':')) return parseDigest(ref)
    const text = await unlessAbsent(readFile(this.#tagPath(name, ref), 'utf8'))
    return text === undefined ? undefined : parseDigest(text)
  }

  /** The bytes first, then who refers to whom, then the tag: a crash leaves a manifest without its tag, never a tag without its manifest. */
  async putManifest(
    name: string,
    manifest: StoredManifest,
    more: { tag: string | undefined; subject: Digest | undefined },
  ): Promise<void> {
    const path = this.#manifestPath(name, manifest.digest)
    await writeDurably(`${path}.type`, manifest.mediaType, this.uploads)
    await writeDurably(path, manifest.bytes, this.uploads)
    if (more.subject !== undefined)
      await writeDurably(join(this.#referrersFolder(name, more.subject), fileName(manifest.digest)), '', this.uploads)
    if (more.tag !== undefined) await writeDurably(this.#tagPath(name, more.tag), manifest.digest, this.uploads)
  }

  async deleteTag(name: string, tag: string): Promise<boolean> {
    return (await unlessAbsent(rm(this.#tagPath(name, tag)).then(() => true))) === true
  }

  /** With the tags that point to it. */
  async deleteManifest(name: string, digest: Digest, subject: Digest | undefined): Promise<void> {
    for (const tag of await this.tags(name)) {
      if ((await this.manifestDigest(name, tag)) === digest) await this.deleteTag(name, tag)
    }
    const path = this.#manifestPath(name, digest)
    await rm(path, { force: true })
    await rm(`${path}.type`, { force: true })
    if (subject !== undefined) await rm(join(this.#referrersFolder(name, subject), fileName(digest)), { force: true })
  }

  /** In the order of their bytes. */
  async tags(name: string): Promise<string[]> {
    return ((await unlessAbsent(readdir(join(this.#repository(name), '_tags')))) ?? []).toSorted()
  }

  async referrers(name: string, subject: Digest): Promise<Digest[]> {
    const names = (await unlessAbsent(readdir(this.#referrersFolder(name, subject)))) ?? []
    return names.toSorted().map((file) => parseDigest(file.replace('-', ':')))
  }

  async repositories(): Promise<string[]> {
    const found: string[] = []
    const pending = ['']
    for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
      const entries = (await unlessAbsent(readdir(join(this.#root, 'repositories', at)))) ?? []
      if (entries.some((entry) => entry.startsWith('_'))) found.push(at)
      for (const entry of entries) if (!entry.startsWith('_')) pending.push(at === '' ? entry : `${at}/${entry}`)
    }
    return found.toSorted()
  }

  async #linkBlob(name: string, digest: Digest): Promise<boolean> {
    const path = this.#blobLink(name, digest)
    await mkdir(dirname(path), { recursive: true })
    try {
      await link(this.#sharedBlob(digest), path)
    } catch (error) {
      if (errno(error) === 'EEXIST') return true
      if (errno(error) === 'ENOENT') return false // deleted at this moment
      throw error
    }
    await syncFolder(dirname(path))
    return true
  }

  #sharedBlob(digest: Digest): string {
    const hex = digestHex(digest)
    return join(this.#root, 'blobs', digestAlgorithm(digest), hex.slice(0, 2), hex)
  }

  #repository(name: string): string {
    checkName(name)
    return join(this.#root, 'repositories', name)
  }

  #blobLink(name: string, digest: Digest): string {
    return join(this.#repository(name), '_blobs', digestAlgorithm(digest), digestHex(digest))
  }

  #manifestPath(name: string, digest: Digest): string {
    return join(this.#repository(name), '_manifests', digestAlgorithm(digest), digestHex(digest))
  }

  #tagPath(name: string, tag: string): string {
    if (!isTag(tag))
      throw new SpecError('TAG_INVALID', `${JSON.stringify(tag.slice(0, 200))} is neither a tag nor a digest`)
    return join(this.#repository(name), '_tags', tag)
  }

  #referrersFolder(name: string, subject: Digest): string {
    return join(this.#repository(name), '_referrers', fileName(subject))
  }
}

/** Throws NAME_INVALID unless it is a repository name of the specification: also what keeps `..` and absolute paths out of the store. */
export function checkName(name: string): void {
  if (!isRepositoryName(name))
    throw new SpecError('NAME_INVALID', `${JSON.stringify(name.slice(0, 300))} is no repository name`)
}

function fileName(digest: Digest): string {
  return digest.replace(':', '-')
}
