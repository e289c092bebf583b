import { type FileHandle, lstat, mkdtemp, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Digest, Repository } from '../../registry/index.ts'
import { type TarEntry, TarReader } from '../../tar/index.ts'
import { SnapshotterError } from '../errors.ts'
import { plainLayer } from './plain-layer.ts'

/** In the layer. Source: docs/formats/oci-image.md, "Bootstrap layer". */
const BOOTSTRAP = 'image/image.boot'
const META = /^image\/([0-9a-f]{64}\.blob\.meta)$/
/** A million files are about 200 MiB; limits for what comes from outside. */
export const MAX_STORED_BYTES = 512 * 1024 * 1024
const MAX_PLAIN_BYTES = 4 * 1024 * 1024 * 1024
const MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024 - 1
const MAX_METAS = 1000
const PIECE_BYTES = 1024 * 1024
const STAGING = '.bootstrap-'

export interface BootstrapLayer {
  readonly repository: Repository
  readonly digest: Digest
  readonly size: number
  /** Of the snapshot; what is fetched goes into its `fs`. */
  readonly directory: string
  readonly signal: AbortSignal
}

/**
 * Fetches the layer, compares its digest, and puts its `image/image.boot` and the blobs' `*.blob.meta` into the snapshot's `fs`, where nydusd is given them; gives the path of the bootstrap. One call a directory at a time.
 * All is collected beside `fs` and appears by rename, the bootstrap last: a crash leaves a folder that the next call removes. A bootstrap that is there already is taken as it is. Names in the layer are compared, never used.
 * Throws RegistryError; SnapshotterError 'BAD_STATE' for a layer that is not one with a bootstrap.
 */
export async function fetchBootstrapLayer(layer: BootstrapLayer): Promise<string> {
  const { directory, digest, size } = layer
  const fs = join(directory, 'fs')
  const target = join(fs, 'image.boot')
  if (!(await lstat(fs)).isDirectory())
    throw new SnapshotterError('BAD_STATE', `${fs} is no directory; remove the image and pull it again`)
  if (await isFile(target)) return target
  for (const name of await readdir(directory))
    if (name.startsWith(STAGING)) await rm(join(directory, name), { recursive: true, force: true })
  const staging = await mkdtemp(join(directory, STAGING))
  try {
    if (size > MAX_STORED_BYTES)
      throw new SnapshotterError('BAD_STATE', `it has ${size} bytes, at most ${MAX_STORED_BYTES} are read`)
    const names = await unpack(layer, staging)
    for (const name of names.metas) await rename(join(staging, name), join(fs, name))
    await rename(join(staging, 'image.boot'), target)
    await syncFolder(fs)
    return target
  } catch (error) {
    throw refusal(error, digest, fs)
  } finally {
    await rm(staging, { recursive: true, force: true })
  }
}

/** What the registry's client throws stays as it is. */
function refusal(error: unknown, digest: Digest, fs: string): unknown {
  const { name, message, code } = error as NodeJS.ErrnoException
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new SnapshotterError(
      'RESOURCE_EXHAUSTED',
      `cannot write a bootstrap into ${fs}: ${code}; make room on its disk`,
      { cause: error },
    )
  if (!(error instanceof SnapshotterError) && name !== 'TarError') return error
  return new SnapshotterError('BAD_STATE', `cannot use bootstrap layer ${digest}: ${message}`, { cause: error })
}

async function unpack(
  { repository, digest, size, signal }: BootstrapLayer,
  staging: string,
): Promise<{ metas: readonly string[] }> {
  const stored = repository.blobStream(digest, { size, signal })
  const plain = plainLayer(openEnded(stored), MAX_PLAIN_BYTES)
  const reader = new TarReader(openEnded(plain))
  const metas: string[] = []
  let hasBootstrap = false
  try {
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      const name = wantedName(entry)
      if (name === undefined) continue
      if (name === 'image.boot') hasBootstrap = true
      else if (metas.push(name) > MAX_METAS)
        throw new SnapshotterError('BAD_STATE', `it holds more than ${MAX_METAS} files of blobs`)
      await writeEntry(reader, entry, join(staging, name))
    }
    // The tar has an end mark, and the digest is that of all bytes: both streams are read to their ends.
    for await (const _ of plain);
    for await (const _ of stored);
  } finally {
    await plain.return()
    await stored.return()
  }
  if (!hasBootstrap) throw new SnapshotterError('BAD_STATE', `it holds no ${BOOTSTRAP}`)
  return { metas }
}

/** Where an entry goes; undefined: it is not needed. */
function wantedName({ path, type }: TarEntry): string | undefined {
  if (type !== 'file') return undefined
  const text = Buffer.from(path)
    .toString('latin1')
    .replace(/^(?:\.\/)+/, '')
  return text === BOOTSTRAP ? 'image.boot' : META.exec(text)?.[1]
}

async function writeEntry(reader: TarReader, entry: TarEntry, path: string): Promise<void> {
  if (entry.size === 0 || entry.size > MAX_FILE_BYTES)
    throw new SnapshotterError(
      'BAD_STATE',
      `its ${path.slice(path.lastIndexOf('/') + 1)} has ${entry.size} bytes, wanted are 1 to ${MAX_FILE_BYTES}`,
    )
  const file = await createFile(path)
  try {
    const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, entry.size))
    for (let left = entry.size; left > 0; ) {
      const count = await reader.read(piece.subarray(0, Math.min(piece.length, left)))
      if (count === 0) throw new SnapshotterError('BAD_STATE', 'its tar ends early')
      await file.writeFile(piece.subarray(0, count))
      left -= count
    }
    await file.sync()
  } finally {
    await file.close()
  }
}

async function createFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'wx', 0o644)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    throw new SnapshotterError('BAD_STATE', `it holds ${path.slice(path.lastIndexOf('/') + 1)} twice`, { cause: error })
  }
}

async function isFile(path: string): Promise<boolean> {
  try {
    const stats = await lstat(path)
    return stats.isFile() && stats.size > 0
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Who stops reading does not end the generator: what is left of it is read afterwards. */
function openEnded(generator: AsyncGenerator<Uint8Array, void, undefined>): AsyncIterable<Uint8Array> {
  return { [Symbol.asyncIterator]: () => ({ next: () => generator.next() }) }
}
