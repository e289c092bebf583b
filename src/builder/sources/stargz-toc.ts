import type { FileTree, NodeId } from '../../rafs/index.ts'
import { BuilderError } from '../errors.ts'
import { imagePath, shown, toKey } from '../image-path.ts'
import { FILE_TYPES, LayerTree, type LayerValues, newValues, PendingLinks, type Xattr } from '../layer-tree.ts'
import { sortedXattrs } from '../xattrs.ts'
import { deviceOf, linkOf, STARGZ_FILES } from './tar.ts'
import { readTocEntries } from './toc-json.ts'
import { TocFields } from './toc-fields.ts'

export interface TocSourceOptions {
  /** False: uid and gid become 0. */
  readonly keepOwners: boolean
  readonly signal: AbortSignal
  /** Gets the tree. */
  readonly files: FileTree
}

/** A part of a file, in a gzip member of its own. */
export interface TocChunk {
  /** Where its gzip member starts in the layer. */
  readonly offset: number
  /** Of the file's bytes. */
  readonly chunkOffset: number
  /** 0: up to the end of the file. */
  readonly chunkSize: number
  readonly digest: Buffer
}

/** A file with content, and its chunks as the table lists them. */
export interface TocFile {
  /** For messages. */
  readonly name: string
  readonly size: number
  /** Start of the file's list of chunks in the tree, which stands for the file until they are known. */
  readonly place: number
  readonly chunks: TocChunk[]
}

export interface TocLayer {
  readonly root: NodeId
  /** In the order of the table, those of the layer itself (landmarks) left out. */
  readonly files: readonly TocFile[]
  /** Where gzip members with content start, ascending. */
  readonly offsets: Float64Array
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
  readonly #files: TocFile[] = []
  readonly #offsets: number[] = []
  readonly #keepOwners: boolean
  /** The file whose further chunks come next. */
  #open: { readonly name: string; readonly file: TocFile } | undefined

  constructor({ keepOwners, files }: TocSourceOptions) {
    this.#keepOwners = keepOwners
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
      values.chunks = this.#tree.files.chunks.addList(1)
      const [{ size }, place] = [values, values.chunks.start]
      const file = { name: fields.shown, size, place, chunks: [chunkOf(fields, fields.integer('chunkSize') === 0)] }
      this.#offsets.push(fields.integer('offset'))
      this.#open = { name: toKey(path), file }
      if (!isOfLayer(names)) this.#files.push(file)
    }
    if (!isOfLayer(names)) this.#tree.put(names, values)
  }

  finish(): TocLayer {
    this.#links.finish()
    return { root: this.#tree.root, files: this.#files, offsets: Float64Array.from(this.#offsets).sort() }
  }

  #addChunk(fields: TocFields): void {
    const open = this.#open
    if (open?.name !== toKey(fields.path)) throw fields.bad('it is a chunk, and does not follow the file that it is of')
    open.file.chunks.push(chunkOf(fields, false))
    this.#offsets.push(fields.integer('offset'))
  }

  #values(fields: TocFields): LayerValues {
    const type = TYPES.get(fields.type)
    if (type === undefined) throw fields.bad(`it has the type ${JSON.stringify(fields.type).slice(0, 40)}`)
    const values = newValues(type | (fields.integer('mode') & 0o7777))
    values.mtime = fields.modificationTime()
    if (this.#keepOwners) {
      values.uid = fields.integer('uid', 0xffff_ffff)
      values.gid = fields.integer('gid', 0xffff_ffff)
    }
    values.xattrs = sortedXattrs(xattrsOf(fields), () => fields.shown)
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
