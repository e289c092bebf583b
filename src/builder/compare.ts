import { ChunkInfo } from '../blob/index.ts'
import type { DigestName } from '../codec/index.ts'
import { Attributes, type Bootstrap, type ChunkSpan, type Ino } from '../rafs/index.ts'
import type { CheckFinding } from './check.ts'
import { ChunkPipeline } from './chunk-pipeline.ts'
import type { Content } from './content.ts'
import { withChunkWorkers } from './chunk-workers.ts'
import { LayerDictionary } from './dictionary.ts'
import { coded } from './errors.ts'
import { shown, toKey } from './image-path.ts'
import { impliedDirectory, isType, type LayerNode, type Xattr } from './layer-tree.ts'
import { emptyRoot, overlay } from './overlay.ts'
import { sortedChildren } from './rafs-tree.ts'
import { readTarLayer } from './sources/tar.ts'

/** How files of the source are digested: as the image that they are compared with has them. */
export interface SourceTreeOptions {
  readonly chunkSize: number
  readonly digest: DigestName
  readonly signal: AbortSignal
}

/**
 * Reads the layers of a source image, lowest first, each opened when its turn comes, and lays them over each other: whiteouts act and are gone, hard links are one node. Nothing is stored;
 * files have the digests of their chunks, so the tree can be compared with a converted image without any of its data.
 */
export async function readSourceTree(
  layers: ReadonlyArray<() => AsyncIterable<Uint8Array>>,
  options: SourceTreeOptions,
): Promise<LayerNode> {
  const { chunkSize, digest, signal } = options
  let root: LayerNode | undefined
  try {
    await withChunkWorkers(async (workers) => {
      for (const open of layers) {
        let stored = 0
        const pipeline = new ChunkPipeline({
          chunkSize,
          algorithms: { compression: 'none', digest, cipher: undefined },
          dictionary: new LayerDictionary(undefined),
          workers,
          store: (record) => {
            signal.throwIfAborted()
            record.index = stored++
          },
          packs: undefined,
        })
        try {
          const layer = await readTarLayer(open(), {
            keepOwners: true,
            signal,
            addContent: (content: Content) => pipeline.add(content),
          })
          await pipeline.finish()
          root = overlay(root ?? emptyRoot(layer), layer, 'oci')
        } finally {
          pipeline.close()
        }
      }
    })
  } catch (error) {
    signal.throwIfAborted()
    throw coded(error)
  }
  return root ?? impliedDirectory()
}

/** Everything in which an image differs from a source's tree: paths, attributes, hard links, xattrs, chunk digests. */
export function* compareWithImage(root: LayerNode, image: Bootstrap): Generator<CheckFinding> {
  const comparison = new TreeComparison(image)
  yield* comparison.node('/', root, image.root)
  const open: Array<readonly [string, LayerNode, Ino]> = [['', root, image.root]]
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    const [prefix, directory, ino] = at
    const found = entriesOf(image, ino)
    for (const [name, node] of sortedChildren(directory)) {
      const path = `${prefix}/${name}`
      const child = found.get(name)
      found.delete(name)
      if (child === undefined) yield difference('tree', path, 'it is missing in the image')
      else {
        yield* comparison.node(path, node, child)
        if (node.children !== undefined && comparison.isDirectory(child)) open.push([path, node, child])
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
  readonly #image: Bootstrap
  readonly #attributes = new Attributes()
  readonly #spans: ChunkSpan[] = []
  readonly #info = new ChunkInfo()
  /** Which inode stands for which node: hard links must lead to one, and only they. */
  readonly #inodes = new Map<LayerNode, Ino>()
  readonly #nodes = new Map<Ino, LayerNode>()

  constructor(image: Bootstrap) {
    this.#image = image
  }

  isDirectory(ino: Ino): boolean {
    this.#image.attributes(ino, this.#attributes)
    return (this.#attributes.mode & 0o170000) === 0o040000
  }

  *node(path: string, node: LayerNode, ino: Ino): Generator<CheckFinding> {
    const image = this.#image
    const found = this.#attributes
    image.attributes(ino, found)
    const differs = (what: string, is: string | number, wanted: string | number): CheckFinding =>
      difference('inode', path, `${what} is ${is} in the image, ${wanted} in the source`)
    if (found.mode !== node.mode) yield differs('its mode', found.mode.toString(8), node.mode.toString(8))
    if (image.explicitOwners && (found.uid !== node.uid || found.gid !== node.gid))
      yield differs('its owner', `${found.uid}:${found.gid}`, `${node.uid}:${node.gid}`)
    if (found.mtime !== node.mtime) yield differs('its time', found.mtime, node.mtime)
    if ((isType(node, 'char') || isType(node, 'block')) && found.rdev !== node.rdev)
      yield differs('its device number', found.rdev, node.rdev)
    if (isType(node, 'file') && found.size !== node.size) yield differs('its size', found.size, node.size)
    if (found.hasXattrs || node.xattrs.length > 0) {
      const [is, wanted] = [xattrText(image.xattrs(ino)), xattrText(node.xattrs)]
      if (is !== wanted) yield differs('the list of its xattrs', is, wanted)
    }
    if (node.target !== undefined && isType(node, 'symlink') && (found.mode & 0o170000) === 0o120000) {
      const [is, wanted] = [toKey(image.readlink(ino)), toKey(node.target)]
      if (is !== wanted) yield differs('its target', shown(is), shown(wanted))
    }
    if (node.children !== undefined) return
    const isSame = (this.#inodes.get(node) ?? ino) === ino && (this.#nodes.get(ino) ?? node) === node
    if (!isSame) yield difference('inode', path, 'its hard links are others than in the source')
    const isNew = !this.#inodes.has(node)
    this.#inodes.set(node, ino)
    this.#nodes.set(ino, node)
    if (isNew && isType(node, 'file') && found.size === node.size) yield* this.#chunks(path, node, ino)
  }

  *#chunks(path: string, node: LayerNode, ino: Ino): Generator<CheckFinding> {
    const count = this.#image.chunks(ino, 0, node.size, this.#spans)
    if (count !== node.chunks.length)
      yield difference('chunks', path, `it has ${count} chunks in the image, ${node.chunks.length} in the source`)
    for (const [index, chunk] of node.chunks.entries()) {
      const span = this.#spans[index]
      if (span === undefined || index >= count) return
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
