import { gunzipSync, gzipSync } from 'node:zlib'
import { type Descriptor, type Digest, digestHex, digestOf, type Repository } from '../registry/index.ts'
import { TarReader, TarWriter } from '../tar/index.ts'
import { ConvertError } from './errors.ts'
import type { BlobLayer, BootstrapLayer } from './nydus-image.ts'

/** Paths in the layer. Source: docs/formats/oci-image.md, "Bootstrap layer". */
const FOLDER = 'image'
export const BOOTSTRAP_PATH = `${FOLDER}/image.boot`
const META_SUFFIX = '.blob.meta'
/** A million files are about 200 MiB; limits for what comes from outside. */
const MAX_STORED_BYTES = 512 * 1024 * 1024
const MAX_PLAIN_BYTES = 2 * 1024 * 1024 * 1024 - 1
const GZIP_OS = 9
const UNKNOWN_OS = 255

/** A blob with its compression context, when it has any chunks. */
export interface BlobWithMeta extends BlobLayer {
  readonly blobMeta: Uint8Array | undefined
}

/** Packs the merged bootstrap and the blobs' compression contexts; the same parts give the same bytes on every machine. */
export async function packBootstrapLayer(
  bootstrap: Uint8Array,
  blobs: readonly BlobWithMeta[],
): Promise<BootstrapLayer & { readonly bytes: Uint8Array }> {
  const parts: Uint8Array[] = []
  const tar = new TarWriter((bytes) => void parts.push(Buffer.from(bytes)))
  await tar.add({ path: Buffer.from(FOLDER), type: 'directory', mode: 0o755 })
  await tar.add({ path: Buffer.from(BOOTSTRAP_PATH), type: 'file', mode: 0o444, size: bootstrap.length }, [bootstrap])
  const packed = new Set<string>()
  for (const { digest, blobMeta } of blobs) {
    if (blobMeta === undefined || packed.has(digest)) continue
    packed.add(digest)
    await tar.add(
      {
        path: Buffer.from(`${FOLDER}/${digestHex(digest)}${META_SUFFIX}`),
        type: 'file',
        mode: 0o444,
        size: blobMeta.length,
      },
      [blobMeta],
    )
  }
  await tar.finish()
  const plain = Buffer.concat(parts)
  const bytes = gzipSync(plain)
  // As Go's gzip writes it: zlib would name the system.
  bytes[GZIP_OS] = UNKNOWN_OS
  return { digest: digestOf(bytes), size: bytes.length, diffId: digestOf(plain), bytes }
}

/** What a bootstrap layer holds: paths below the layer's root with their content. */
export interface UnpackedBootstrap {
  readonly files: ReadonlyMap<string, Uint8Array>
  readonly bootstrap: Uint8Array
  /** Of the plain tar. */
  readonly diffId: Digest
}

/**
 * Fetches and unpacks a bootstrap layer. Throws 'BAD_IMAGE' when it is none: too large, no gzip or tar, a path that leads out of it, no bootstrap in it.
 */
export async function fetchBootstrapLayer(
  repository: Repository,
  layer: Descriptor,
  signal: AbortSignal,
): Promise<UnpackedBootstrap> {
  const bad = (why: string, cause?: unknown): ConvertError =>
    new ConvertError('BAD_IMAGE', `cannot use bootstrap layer ${layer.digest}: ${why}`, { cause })
  if (layer.size > MAX_STORED_BYTES) throw bad(`it has ${layer.size} bytes, ${MAX_STORED_BYTES} are read`)
  const stored = await repository.blob(layer.digest, MAX_STORED_BYTES, { signal })
  let plain: Uint8Array
  try {
    plain = stored[0] === 0x1f && stored[1] === 0x8b ? gunzipSync(stored, { maxOutputLength: MAX_PLAIN_BYTES }) : stored
  } catch (cause) {
    throw bad(`gzip says ${(cause as Error).message}`, cause)
  }
  const files = new Map<string, Uint8Array>()
  try {
    for await (const [path, content] of readFiles(plain)) files.set(path, content)
  } catch (cause) {
    throw bad((cause as Error).message, cause)
  }
  const bootstrap = files.get(BOOTSTRAP_PATH)
  if (bootstrap === undefined)
    throw bad(`it holds no ${BOOTSTRAP_PATH}; it holds: ${[...files.keys()].join(', ').slice(0, 300) || 'nothing'}`)
  return { files, bootstrap, diffId: digestOf(plain) }
}

async function* readFiles(tar: Uint8Array): AsyncGenerator<readonly [string, Uint8Array]> {
  const reader = new TarReader(once(tar))
  try {
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      if (entry.type === 'directory') continue
      const path = Buffer.from(entry.path)
        .toString('utf8')
        .replace(/^(\.\/)+/, '')
      const names = path.split('/')
      if (
        entry.type !== 'file' ||
        names.some((name) => name === '' || name === '..' || name === '.' || name.includes('\0'))
      ) {
        throw new ConvertError('BAD_IMAGE', `its entry ${JSON.stringify(path)} is no plain file below the layer's root`)
      }
      if (entry.size > tar.length)
        throw new ConvertError('BAD_IMAGE', `its entry ${JSON.stringify(path)} says it has ${entry.size} bytes`)
      const content = Buffer.alloc(entry.size)
      for (let filled = 0; filled < content.length; ) filled += await readSome(reader, content.subarray(filled))
      yield [path, content]
    }
  } finally {
    await reader.close()
  }
}

async function readSome(reader: TarReader, into: Uint8Array): Promise<number> {
  const count = await reader.read(into)
  if (count === 0) throw new ConvertError('BAD_IMAGE', 'its tar ends early')
  return count
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}
