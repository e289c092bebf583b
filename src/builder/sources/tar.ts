import { type ChunkList, type FileTree, type NewValues, newValues, type NodeId } from '../../rafs/index.ts'
import { type ByteInput, type TarEntry, TarReader } from '../../tar/index.ts'
import type { Content } from '../content.ts'
import { BuilderError } from '../errors.ts'
import { ImagePaths, shown, toKey } from '../image-path.ts'
import { FILE_TYPES, LayerTree, PendingLinks } from '../layer-tree.ts'
import type { OnLost } from '../losses.ts'
import { sortedXattrs } from '../xattrs.ts'
import { decompressedLayer } from './decompressed-layer.ts'

/** Files of an eStargz layer that are about the archive, not of it. */
export const STARGZ_FILES: ReadonlySet<string> = new Set([
  'stargz.index.json',
  '.prefetch.landmark',
  '.no.prefetch.landmark',
])
/** Kernel and readers take no longer link. */
const MAX_LINK_BYTES = 4095
/** dev_t in 32 bits: 12 of major, 20 of minor. */
const MAX_MAJOR = 0xfff
const MAX_MINOR = 0xfffff

export interface TarSourceOptions {
  /** False: uid and gid become 0. */
  readonly keepOwners: boolean
  readonly signal: AbortSignal
  /** Told of what an image cannot hold, which is left out; without it that throws. */
  readonly onLost?: OnLost | undefined
  /** Takes the content of a file at once: an archive is read once, front to back. */
  readonly addContent: (content: ArchivedContent) => Promise<ChunkList> | ChunkList
  /** Gets the tree. */
  readonly files: FileTree
}

/** What a file of an archive holds, and where in the (plain) archive it starts. */
export interface ArchivedContent extends Content {
  readonly archivePosition: number
}

/**
 * Reads a layer: a tar, plain or compressed with gzip or zstd. Whiteout markers are ordinary entries here. Only whole seconds of times are kept, as
 * the original does: dropping the rest keeps bootstraps equal.
 */
export async function readTarLayer(stream: AsyncIterable<Uint8Array>, options: TarSourceOptions): Promise<NodeId> {
  return await readPlainTarLayer(decompressedLayer(stream), options)
}

/** The same of a tar that is known to be plain, or is read as plain bytes. */
export async function readPlainTarLayer(
  stream: AsyncIterable<Uint8Array> | ByteInput,
  options: TarSourceOptions,
): Promise<NodeId> {
  const reader = new TarReader(stream)
  const tree = new LayerTree(options.files)
  const links = new PendingLinks(tree)
  const paths = new ImagePaths()
  try {
    for (;;) {
      const pulled = reader.next()
      const entry = pulled instanceof Promise ? await pulled : pulled
      if (entry === undefined) break
      options.signal.throwIfAborted()
      if (entry.type === 'hardlink') {
        links.link(entry.path, entry.link)
        continue
      }
      const names = paths.names(entry.path)
      if (names.length === 1 && STARGZ_FILES.has(names[0] ?? '')) continue
      const values = valuesOf(entry, options)
      if (entry.type === 'file' && entry.size > 0) {
        const adding = options.addContent(new TarContent(entry, reader))
        values.chunks = adding instanceof Promise ? await adding : adding
      }
      tree.put(names, values)
    }
  } finally {
    await reader.close()
  }
  links.finish()
  return tree.root
}

function valuesOf(entry: TarEntry, { keepOwners, onLost }: TarSourceOptions): NewValues {
  const type = entry.type === 'hardlink' ? 'file' : entry.type
  const values = newValues(FILE_TYPES[type] | entry.mode)
  values.mtime = entry.mtimeSeconds
  if (keepOwners) {
    values.uid = entry.uid
    values.gid = entry.gid
  }
  values.xattrs = sortedXattrs(entry.xattrs, () => shown(toKey(entry.path)), onLost)
  if (type === 'file') values.size = entry.size
  else if (type === 'symlink') values.target = linkOf(entry)
  else if (type !== 'directory') values.rdev = deviceOf(entry)
  if (values.target !== undefined) values.size = values.target.length
  return values
}

/** The target of a symlink. Throws 'BAD_SOURCE' for one that Linux does not take. */
export function linkOf(entry: Pick<TarEntry, 'path' | 'link'>): Uint8Array {
  if (entry.link.length === 0 || entry.link.length > MAX_LINK_BYTES) {
    throw new BuilderError(
      'BAD_SOURCE',
      `the symlink ${shown(toKey(entry.path))} has a target of ${entry.link.length} bytes; Linux takes 1 to ${MAX_LINK_BYTES}`,
    )
  }
  return entry.link
}

/** Linux's dev_t in 32 bits. Throws 'BAD_SOURCE' for numbers that do not fit. */
export function deviceOf(entry: Pick<TarEntry, 'path' | 'devMajor' | 'devMinor'>): number {
  const { devMajor, devMinor } = entry
  if (devMajor > MAX_MAJOR || devMinor > MAX_MINOR) {
    throw new BuilderError(
      'BAD_SOURCE',
      `the device ${shown(toKey(entry.path))} has the number ${devMajor}:${devMinor}; images take up to ${MAX_MAJOR}:${MAX_MINOR}`,
    )
  }
  return encodeDevice(devMajor, devMinor)
}

/** Linux's dev_t in 32 bits. */
function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12)) >>> 0
}

/** What a file of the archive holds; to be read before the next entry is pulled. */
class TarContent implements ArchivedContent {
  readonly #entry: TarEntry
  readonly #reader: TarReader
  readonly holes: Content['holes']
  readonly archivePosition: number

  constructor(entry: TarEntry, reader: TarReader) {
    this.#entry = entry
    this.#reader = reader
    this.archivePosition = reader.position
    this.holes =
      entry.sparse === undefined
        ? undefined
        : { nextData: (offset) => offset + reader.holeAhead(), skip: (bytes) => reader.skipHole(bytes) }
  }

  get name(): string {
    return shown(toKey(this.#entry.path))
  }

  get size(): number {
    return this.#entry.size
  }

  read(into: Uint8Array): Promise<number> | number {
    return this.#reader.read(into)
  }
}
