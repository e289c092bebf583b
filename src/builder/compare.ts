import { ChunkInfo } from '../blob/index.ts'
import type { DigestName } from '../codec/index.ts'
import { Attributes, type Bootstrap, type ChunkSpan, FileTree, type Ino, type NodeId } from '../rafs/index.ts'
import type { CheckFinding } from './check.ts'
import { ChunkPipeline } from './chunk-pipeline.ts'
import type { Content } from './content.ts'
import { withChunkWorkers } from './chunk-workers.ts'
import { LayerDictionary } from './dictionary.ts'
import { coded } from './errors.ts'
import { shown, toKey } from './image-path.ts'
import { FILE_TYPES, impliedRoot, type Xattr } from './layer-tree.ts'
import { emptyRoot, overlay } from './overlay.ts'
import { readTarLayer } from './sources/tar.ts'

/** How files of the source are digested: as the image that they are compared with has them. */
export interface SourceTreeOptions {
  readonly chunkSize: number
  readonly digest: DigestName
  readonly signal: AbortSignal
}

/** A source image as one tree. */
export interface SourceTree {
  readonly files: FileTree
  readonly root: NodeId
}

/**
 * Reads the layers of a source image, lowest first, each opened when its turn comes, and lays them over each other: whiteouts act and are gone, hard links are one node. Nothing is stored;
 * files have the digests of their chunks, so the tree can be compared with a converted image without any of its data.
 */
export async function readSourceTree(
  layers: ReadonlyArray<() => AsyncIterable<Uint8Array>>,
  options: SourceTreeOptions,
): Promise<SourceTree> {
  const { chunkSize, digest, signal } = options
  const files = new FileTree()
  let root: NodeId | undefined
  try {
    await withChunkWorkers(async (workers) => {
      for (const open of layers) {
        let stored = 0
        const pipeline = new ChunkPipeline({
          chunkSize,
          algorithms: { compression: 'none', digest, cipher: undefined },
          chunks: files.chunks,
          dictionary: new LayerDictionary(undefined, files.chunks),
          workers,
          store: (record) => {
            signal.throwIfAborted()
            record.index = stored++
          },
          packs: undefined,
        })
        try {
          const layer = await readTarLayer(open(), {
            files,
            keepOwners: true,
            signal,
            // Nobody misses in an image what none can hold.
            onLost: () => undefined,
            addContent: (content: Content) => pipeline.add(content),
          })
          await pipeline.finish()
          root ??= emptyRoot(files, layer)
          overlay(files, root, layer, 'oci')
        } finally {
          pipeline.close()
        }
      }
    })
  } catch (error) {
    signal.throwIfAborted()
    throw coded(error)
  }
  files.chunks.closeIndex()
  return { files, root: root ?? impliedRoot(files) }
}

/** Everything in which an image differs from a source's tree: paths, attributes, hard links, xattrs, chunk digests. */
export function* compareWithImage({ files, root }: SourceTree, image: Bootstrap): Generator<CheckFinding> {
  const comparison = new TreeComparison(files, image)
  yield* comparison.node('/', root, image.root)
  const open: Array<readonly [string, NodeId, Ino]> = [['', root, image.root]]
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    const [prefix, directory, ino] = at
    const found = entriesOf(image, ino)
    files.sort(directory)
    for (let id = files.firstChild(directory); id !== 0; id = files.next(id)) {
      const name = files.text(id)
      const path = `${prefix}/${name}`
      const child = found.get(name)
      found.delete(name)
      if (child === undefined) yield difference('tree', path, 'it is missing in the image')
      else {
        yield* comparison.node(path, id, child)
        if (files.isDirectory(id) && comparison.isDirectory(child)) open.push([path, id, child])
      }
    }
    for (const name of found.keys()) yield difference('tree', `${prefix}/${name}`, 'the source does not have it')
  }
}

function difference(part: CheckFinding['part'], path: string, message: string): CheckFinding {
  return { part, object: shown(path), message }
}

function entriesOf(image: Bootstrap, directory: Ino): Map<string, Ino> {
  const entries = new Map<string, Ino>()
  image.list(directory, 0, (name, ino) => {
    entries.set(toKey(name), ino)
    return true
  })
  return entries
}

class TreeComparison {
  readonly #files: FileTree
  readonly #image: Bootstrap
  readonly #attributes = new Attributes()
  readonly #spans: ChunkSpan[] = []
  readonly #info = new ChunkInfo()
  /** Which inode stands for which of the source: hard links must lead to one, and only they. */
  readonly #inodes = new Map<NodeId, Ino>()
  readonly #nodes = new Map<Ino, NodeId>()

  constructor(files: FileTree, image: Bootstrap) {
    this.#files = files
    this.#image = image
  }

  isDirectory(ino: Ino): boolean {
    this.#image.attributes(ino, this.#attributes)
    return (this.#attributes.mode & 0o170000) === 0o040000
  }

  *node(path: string, id: NodeId, ino: Ino): Generator<CheckFinding> {
    const image = this.#image
    const files = this.#files
    const found = this.#attributes
    image.attributes(ino, found)
    const differs = (what: string, is: string | number, wanted: string | number): CheckFinding =>
      difference('inode', path, `${what} is ${is} in the image, ${wanted} in the source`)
    const [mode, uid, gid, mtime] = [files.mode(id), files.uid(id), files.gid(id), files.mtime(id)]
    const type = mode & FILE_TYPES.mask
    if (found.mode !== mode) yield differs('its mode', found.mode.toString(8), mode.toString(8))
    if (image.explicitOwners && (found.uid !== uid || found.gid !== gid))
      yield differs('its owner', `${found.uid}:${found.gid}`, `${uid}:${gid}`)
    if (found.mtime !== mtime) yield differs('its time', found.mtime, mtime)
    if ((type === FILE_TYPES.char || type === FILE_TYPES.block) && found.rdev !== files.rdev(id))
      yield differs('its device number', found.rdev, files.rdev(id))
    const isSameSize = found.size === files.size(id)
    if (type === FILE_TYPES.file && !isSameSize) yield differs('its size', found.size, files.size(id))
    if (found.hasXattrs || files.xattrKey(id) !== 0) {
      const [is, wanted] = [xattrText(image.xattrs(ino)), xattrText(files.xattrs(id))]
      if (is !== wanted) yield differs('the list of its xattrs', is, wanted)
    }
    const target = files.target(id)
    if (target !== undefined && (found.mode & FILE_TYPES.mask) === FILE_TYPES.symlink) {
      const [is, wanted] = [toKey(image.readlink(ino)), toKey(target)]
      if (is !== wanted) yield differs('its target', shown(is), shown(wanted))
    }
    if (type === FILE_TYPES.directory) return
    const inode = files.inode(id)
    const isSame = (this.#inodes.get(inode) ?? ino) === ino && (this.#nodes.get(ino) ?? inode) === inode
    if (!isSame) yield difference('inode', path, 'its hard links are others than in the source')
    const isNew = !this.#inodes.has(inode)
    this.#inodes.set(inode, ino)
    this.#nodes.set(ino, inode)
    if (isNew && type === FILE_TYPES.file && isSameSize) yield* this.#chunks(path, id, ino)
  }

  *#chunks(path: string, id: NodeId, ino: Ino): Generator<CheckFinding> {
    const files = this.#files
    const wanted = files.chunkCount(id)
    const count = this.#image.chunks(ino, 0, files.size(id), this.#spans)
    if (count !== wanted)
      yield difference('chunks', path, `it has ${count} chunks in the image, ${wanted} in the source`)
    for (let index = 0; index < Math.min(count, wanted); index += 1) {
      const span = this.#spans[index]
      if (span === undefined) return
      const chunk = files.chunks.at(files.chunk(id, index))
      const layout = this.#image.layout(span.blobIndex)
      // Chunks of one digest share a record in the table, which is another number's then: nothing to compare with.
      if (!layout.has(span.chunkIndex)) continue
      layout.chunk(span.chunkIndex, this.#info)
      if (Buffer.compare(this.#info.digest, chunk.digest) === 0) continue
      yield difference(
        'chunks',
        path,
        `the digest of chunk ${index} is ${Buffer.from(this.#info.digest).toString('hex')} in the image, ${Buffer.from(chunk.digest).toString('hex')} in the source`,
      )
    }
  }
}

function xattrText(xattrs: readonly Xattr[]): string {
  return xattrs
    .map(({ name, value }) => `${Buffer.from(name).toString()}=${Buffer.from(value).toString('base64')}`)
    .sort()
    .join(' ')
}
