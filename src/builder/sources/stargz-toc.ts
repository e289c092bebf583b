import { type FileTree, type NewValues, newValues, type NodeId } from '../../rafs/index.ts'
import { BuilderError } from '../errors.ts'
import { imagePath, shown, toKey } from '../image-path.ts'
import { FILE_TYPES, LayerTree, PendingLinks, type Xattr } from '../layer-tree.ts'
import type { OnLost } from '../losses.ts'
import { sortedXattrs } from '../xattrs.ts'
import { deviceOf, linkOf, STARGZ_FILES } from './tar.ts'
import { type TocChunk, TocFiles } from './toc-files.ts'
import { readTocEntries } from './toc-json.ts'
import { TocFields } from './toc-fields.ts'

export interface TocSourceOptions {
  /** False: uid and gid become 0. */
  readonly keepOwners: boolean
  readonly signal: AbortSignal
  /** Told of what an image cannot hold, which is left out; without it that throws. */
  readonly onLost?: OnLost | undefined
  /** Gets the tree. */
  readonly files: FileTree
}

export interface TocLayer {
  readonly root: NodeId
  /** In the order of the table. A file of the tree that has one of them has one chunk, whose number is that of the file here: until its chunks are known. */
  readonly files: TocFiles
  /** Of {@link files}: those of the layer itself (landmarks), which are not in the tree. */
  readonly ofLayer: ReadonlySet<number>
}

const TYPES: ReadonlyMap<string, number> = new Map([
  ['dir', FILE_TYPES.directory],
  ['reg', FILE_TYPES.file],
  ['symlink', FILE_TYPES.symlink],
  ['char', FILE_TYPES.char],
  ['block', FILE_TYPES.block],
  ['fifo', FILE_TYPES.fifo],
])

/**
 * Reads the table of contents of an eStargz layer, which is all of the layer but its data. Unlike the original's it keeps devices, FIFOs and times (whole seconds, as of archives). Throws BuilderError 'BAD_SOURCE', naming the
 * entry.
 */
export async function readTocLayer(stream: AsyncIterable<Uint8Array>, options: TocSourceOptions): Promise<TocLayer> {
  const reading = new TocReading(options)
  for await (const entry of readTocEntries(stream)) {
    options.signal.throwIfAborted()
    reading.add(new TocFields(entry))
  }
  return reading.finish()
}

class TocReading {
  readonly #tree: LayerTree
  readonly #links: PendingLinks
  readonly #files = new TocFiles()
  readonly #ofLayer = new Set<number>()
  readonly #keepOwners: boolean
  readonly #onLost: OnLost | undefined
  /** Name of the file whose further chunks come next. */
  #open: string | undefined

  constructor({ keepOwners, files, onLost }: TocSourceOptions) {
    this.#keepOwners = keepOwners
    this.#onLost = onLost
    this.#tree = new LayerTree(files)
    this.#links = new PendingLinks(this.#tree)
  }

  add(fields: TocFields): void {
    const { type, path } = fields
    if (type === 'chunk') return this.#addChunk(fields)
    this.#open = undefined
    const names = imagePath(path)
    if (type === 'hardlink') return this.#links.link(path, fields.link())
    const values = this.#values(fields)
    if (type === 'reg' && values.size > 0) {
      const file = this.#files.add(values.size)
      this.#files.addChunk(chunkOf(fields, fields.integer('chunkSize') === 0))
      this.#open = toKey(path)
      if (isOfLayer(names)) this.#ofLayer.add(file)
      else this.#hold(values, file)
    }
    if (!isOfLayer(names)) this.#tree.put(names, values)
  }

  finish(): TocLayer {
    this.#links.finish()
    return { root: this.#tree.root, files: this.#files, ofLayer: this.#ofLayer }
  }

  #hold(values: NewValues, file: number): void {
    const { chunks } = this.#tree.files
    values.chunks = chunks.addList(1)
    chunks.setUse(values.chunks.start, file)
  }

  #addChunk(fields: TocFields): void {
    if (this.#open !== toKey(fields.path)) throw fields.bad('it is a chunk, and does not follow the file that it is of')
    this.#files.addChunk(chunkOf(fields, false))
  }

  #values(fields: TocFields): NewValues {
    const type = TYPES.get(fields.type)
    if (type === undefined) throw fields.bad(`it has the type ${JSON.stringify(fields.type).slice(0, 40)}`)
    const values = newValues(type | (fields.integer('mode') & 0o7777))
    values.mtime = fields.modificationTime()
    if (this.#keepOwners) {
      values.uid = fields.integer('uid', 0xffff_ffff)
      values.gid = fields.integer('gid', 0xffff_ffff)
    }
    values.xattrs = sortedXattrs(xattrsOf(fields), () => fields.shown, this.#onLost)
    if (fields.type === 'reg') values.size = fields.integer('size')
    else if (fields.type === 'symlink') values.target = linkOf({ path: fields.path, link: fields.link() })
    else if (fields.type === 'char' || fields.type === 'block') values.rdev = rdevOf(fields)
    if (values.target !== undefined) values.size = values.target.length
    return values
  }
}

function isOfLayer(names: readonly string[]): boolean {
  return names.length === 1 && STARGZ_FILES.has(names[0] ?? '')
}

/** The digest of a file in one piece may stand for its chunk's: only some builders write both. */
function chunkOf(fields: TocFields, isWhole: boolean): TocChunk {
  // Members that hold several files need an offset within them, which images have no place for.
  if (fields.integer('innerOffset') !== 0)
    throw fields.bad(
      'its data does not start a gzip member of its own ("innerOffset"); build the layer without --estargz-min-chunk-size',
    )
  const offset = fields.integer('offset')
  if (offset === 0) throw fields.bad('it has content and no "offset"')
  const chunkDigest = fields.digest('chunkDigest') ?? (isWhole ? fields.digest('digest') : undefined)
  if (chunkDigest === undefined) throw fields.bad('it has content and no "chunkDigest"')
  return {
    offset,
    chunkOffset: fields.integer('chunkOffset'),
    chunkSize: fields.integer('chunkSize'),
    digest: chunkDigest,
  }
}

function rdevOf(fields: TocFields): number {
  const [devMajor, devMinor] = [fields.integer('devMajor'), fields.integer('devMinor')]
  return deviceOf({ path: fields.path, devMajor, devMinor })
}

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

function xattrsOf(fields: TocFields): Xattr[] {
  return fields.table('xattrs').map(([name, value]) => {
    const text = value ?? ''
    if (typeof text !== 'string' || !BASE64.test(text))
      throw new BuilderError(
        'BAD_SOURCE',
        `stargz: the attribute ${shown(name).slice(0, 80)} of ${fields.shown} is not base64`,
      )
    return { name: Buffer.from(name), value: Buffer.from(text, 'base64') }
  })
}
