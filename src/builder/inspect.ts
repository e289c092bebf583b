import { type BlobInfo, ChunkInfo } from '../blob/index.ts'
import {
  Attributes,
  type Bootstrap,
  type ChunkSpan,
  directoryType,
  type Ino,
  isType,
  listChunks,
  MODE,
  readSpanChunk,
  walkBootstrap,
} from '../rafs/index.ts'

/** What one command of the inspector gave. */
export interface InspectAnswer {
  /** Printed as it is. */
  readonly text: string
  /** For requests; `null` when the command only prints. */
  readonly value: unknown
  readonly status: 'done' | 'exit' | 'help' | 'unknown' | 'bad-argument'
}

export const INSPECT_COMMANDS = [
  'stats',
  'ls',
  'cd',
  'stat',
  'blobs',
  'prefetch',
  'chunk',
  'icheck',
  'help',
  'exit',
  'q',
] as const

/** The original's help, its spelling included: programs compare it. */
const USAGE = `
    stats:              Display RAFS filesystesm metadata
    ls:                 Show files in current directory
    cd DIR:             Change current directory
    stat FILE_NAME:     Show particular information of RAFS file
    blobs:              Show blob table
    prefetch:           Show prefetch table
    chunk OFFSET:       List basic info of a single chunk together with a list of files that share it
    icheck INODE:       Show path of the inode and basic information
    exit:               Exit
        
`

/** Looks around in an image, one command at a time; the words and layouts are the original's. */
export class ImageInspector {
  readonly #image: Bootstrap
  readonly #isRequest: boolean
  readonly #attributes = new Attributes()
  /** Directories from the root to the current one. */
  readonly #path: Ino[]

  constructor(image: Bootstrap, isRequest: boolean) {
    this.#image = image
    this.#isRequest = isRequest
    this.#path = [image.root]
  }

  /** Names that the current directory offers, for completion. */
  names(): string[] {
    return this.#children().map(({ name }) => name)
  }

  execute(line: string): InspectAnswer {
    const [command, argument] = line.trim().split(/[\t\n\f\r ]+/)
    const done = (text: string, value: unknown = null): InspectAnswer => ({ text, value, status: 'done' })
    if (command === undefined || command === '') return done('')
    if (command === 'help') return { text: USAGE, value: null, status: 'help' }
    if (command === 'exit' || command === 'q') return { text: '', value: null, status: 'exit' }
    if (argument === undefined) {
      if (command === 'stats') return this.#stats()
      if (command === 'ls') return done(this.#list())
      if (command === 'blobs') return this.#blobs()
      if (command === 'prefetch') return this.#prefetch()
    } else {
      if (command === 'cd') return done(this.#changeDirectory(argument))
      if (command === 'stat') return done(this.#stat(argument))
      if (command === 'chunk')
        return isNumber(argument)
          ? done(this.#chunk(Number(argument)))
          : { text: 'Wrong OFFSET is specified. Is it a valid u64 value?\n', value: null, status: 'bad-argument' }
      if (command === 'icheck')
        return isNumber(argument)
          ? done(this.#inode(Number(argument)))
          : { text: 'Wrong INODE is specified. Is it a inode number?\n', value: null, status: 'bad-argument' }
    }
    return { text: `Unsupported command: ${command}\n${USAGE}`, value: null, status: 'unknown' }
  }

  get #directory(): Ino {
    return this.#path.at(-1) ?? this.#image.root
  }

  #children(): Array<{ readonly name: string; readonly ino: Ino; readonly type: number }> {
    const children: Array<{ name: string; ino: Ino; type: number }> = []
    this.#image.list(this.#directory, 0, (name, ino, type) => {
      children.push({ name: text(name), ino, type })
      return true
    })
    return children
  }

  #stats(): InspectAnswer {
    const { version, inodeCount, chunkSize, root, blobs, explicitOwners, hasXattrs } = this.#image
    if (this.#isRequest) return { text: '', value: { inodes_count: inodeCount }, status: 'done' }
    const rows: Array<readonly [string, string | number]> = [
      ['Version', version],
      ['Inodes Count', inodeCount],
      ['Chunk Size', `${chunkSize / 1024}KB`],
      ['Root Inode', root],
      ['Flags', [explicitOwners ? 'EXPLICIT_UID_GID' : '', hasXattrs ? 'HAS_XATTR' : ''].filter(Boolean).join(' | ')],
      ['Blobs', blobs.length],
      ['Prefetch table entries', this.#image.prefetch().length],
    ]
    return {
      text: `\n${rows.map(([name, value]) => `    ${`${name}:`.padEnd(24)}${value}\n`).join('')}\n`,
      value: null,
      status: 'done',
    }
  }

  #list(): string {
    const signs = new Map([
      [directoryType(MODE.FILE), '-'],
      [directoryType(MODE.DIRECTORY), 'd'],
      [directoryType(MODE.SYMLINK), 'l'],
    ])
    return this.#children()
      .map(({ name, ino, type }) => `${signs.get(type) ?? ' '}    ${String(ino).padEnd(8)} ${JSON.stringify(name)}\n`)
      .join('')
  }

  #changeDirectory(name: string): string {
    if (name === '.') return ''
    if (name === '..') {
      if (this.#path.length > 1) this.#path.pop()
      return ''
    }
    const child = this.#children().find((candidate) => candidate.name === name)
    if (child === undefined) return `${name} is \n`
    this.#image.attributes(child.ino, this.#attributes)
    if (!isType(this.#attributes.mode, MODE.DIRECTORY)) return `${name} is not a directory\n`
    this.#path.push(child.ino)
    return ''
  }

  #stat(name: string): string {
    if (name === '.')
      return this.#describe(
        this.#directory,
        basename(this.#directory, this.#image),
        this.#image.parent(this.#directory),
      )
    const child = this.#children().find((candidate) => candidate.name === name)
    if (child === undefined) return ''
    const described = this.#describe(child.ino, name, this.#directory)
    return isType(this.#attributes.mode, MODE.FILE)
      ? `${described}  Chunk list:\n${this.#chunkList(child.ino)}`
      : described
  }

  #describe(ino: Ino, name: string, parent: Ino): string {
    this.#image.attributes(ino, this.#attributes)
    const { mode, nlink, uid, gid, size, mtime, mtimeNsec, blocks } = this.#attributes
    const rows: Array<readonly [string, string | number]> = [
      ['Inode Number', ino],
      ['Name', JSON.stringify(name)],
      ['Size', size],
      ['Parent', parent],
      ['Mode', `0x${mode.toString(16).toUpperCase()}`],
      ['Permissions', mode.toString(8)],
      ['Nlink', nlink],
      ['UID', uid],
      ['GID', gid],
      // The original shows the unsigned number.
      ['Mtime', String(BigInt.asUintN(64, BigInt(mtime)))],
      ['MtimeNsec', mtimeNsec],
      ['Blocks', blocks],
    ]
    return `\n${rows.map(([label, value]) => `${`${label}:`.padEnd(20)}${value}\n`).join('')}`
  }

  #chunkList(ino: Ino): string {
    const info = new ChunkInfo()
    return this.#spans(ino)
      .map((span, i) => {
        if (!readSpanChunk(this.#image, span, info)) return '' // it shares its record with another
        return `        ${i} ->
        file offset: ${i * this.#image.chunkSize}, chunk index: ${info.index}
        compressed size: ${info.compressedSize}, decompressed size: ${info.uncompressedSize}
        compressed offset: ${info.compressedOffset}, decompressed offset: ${info.uncompressedOffset}
        blob id: ${this.#blobId(span.blobIndex)}
        chunk id: ${Buffer.from(info.digest).toString('hex')}
    
`
      })
      .join('')
  }

  #spans(ino: Ino): ChunkSpan[] {
    this.#image.attributes(ino, this.#attributes)
    const spans: ChunkSpan[] = []
    spans.length = listChunks(this.#image, ino, this.#attributes.size, spans)
    return spans
  }

  #blobId(index: number): string {
    return this.#image.blobs[index]?.id ?? ''
  }

  #blobs(): InspectAnswer {
    const { blobs } = this.#image
    if (!this.#isRequest) return { text: blobs.map(describeBlob).join(''), value: null, status: 'done' }
    const value = blobs.map((blob) => ({
      blob_id: blob.id,
      compressed_size: blob.compressedSize,
      decompressed_size: blob.uncompressedSize,
      readahead_offset: 0,
      readahead_size: blob.prefetchSize,
    }))
    return { text: '', value, status: 'done' }
  }

  #prefetch(): InspectAnswer {
    const inodes = this.#image.prefetch()
    const wanted = new Map<Ino, string[]>(inodes.map((ino) => [ino, []]))
    for (const { path, ino } of walkBootstrap(this.#image)) wanted.get(ino)?.push(text(path))
    if (this.#isRequest)
      return { text: '', value: inodes.map((inode) => ({ inode, path: wanted.get(inode) ?? [] })), status: 'done' }
    const lines = inodes.map(
      (ino) =>
        `Inode Number:${String(ino).padStart(10)} | Path: ${JSON.stringify((wanted.get(ino) ?? []).join(' '))} \n`,
    )
    return { text: `Total Prefetching Files: ${inodes.length}\n${lines.join('')}`, value: null, status: 'done' }
  }

  /** Every file that has a chunk at this place of its blob. */
  #chunk(compressedOffset: number): string {
    const info = new ChunkInfo()
    const found: string[] = []
    for (const { path, ino } of walkBootstrap(this.#image)) {
      this.#image.attributes(ino, this.#attributes)
      if (!isType(this.#attributes.mode, MODE.FILE)) continue
      for (const span of this.#spans(ino)) {
        if (!readSpanChunk(this.#image, span, info)) continue
        if (info.compressedOffset !== compressedOffset) continue
        const whole = text(path)
        const name = whole.slice(whole.lastIndexOf('/') + 1)
        const parent = whole.slice(0, whole.lastIndexOf('/') + 1)
        found.push(`
File: ${name.padEnd(32)} Parent Path: ${parent.padEnd(32)}
Compressed Offset: ${info.compressedOffset}, Compressed Size: ${info.compressedSize}
Decompressed Offset: ${info.uncompressedOffset}, Decompressed Size: ${info.uncompressedSize}
Chunk ID: ${Buffer.from(info.digest).toString('hex').padEnd(50)},
Blob ID: ${this.#blobId(span.blobIndex)}

`)
      }
    }
    return found.join('')
  }

  #inode(ino: Ino): string {
    // Refuses what is no inode of the image at all.
    this.#image.attributes(ino, this.#attributes)
    const found: string[] = []
    for (const entry of walkBootstrap(this.#image)) {
      if (entry.ino !== ino) continue
      const path = text(entry.path)
      const parent = this.#lookup(path.slice(0, Math.max(0, path.lastIndexOf('/'))))
      found.push(`${path}\n`, this.#describe(ino, path.slice(path.lastIndexOf('/') + 1), parent))
    }
    return found.join('')
  }

  #lookup(path: string): Ino {
    return path
      .split('/')
      .filter((name) => name !== '')
      .reduce(
        (directory, name) => this.#image.lookup(directory, Buffer.from(name)) ?? this.#image.root,
        this.#image.root,
      )
  }
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('utf8')
}

function isNumber(argument: string): boolean {
  return /^[0-9]+$/.test(argument) && Number.isSafeInteger(Number(argument))
}

function basename(directory: Ino, image: Bootstrap): string {
  if (directory === image.root) return '/'
  let found = ''
  image.list(image.parent(directory), 0, (name, ino) => {
    if (ino === directory) found = text(name)
    return found === ''
  })
  return found
}

function describeBlob(blob: BlobInfo): string {
  const rows: Array<readonly [string, string | number]> = [
    ['Blob Index', blob.index],
    ['Blob ID', blob.id],
    ['Blob Size', blob.compressedSize],
    ['Uncompressed Data Size', blob.uncompressedSize],
    ['Features', `0x${blob.features.toString(16)}`],
    ['Compressor', blob.compression],
    ['Digester', blob.digest],
    ['Chunk Size', `0x${blob.chunkSize.toString(16)}`],
    ['Chunk Count', blob.chunkCount],
    ['Prefetch Table Offset', 0],
    ['Prefetch Table Size', blob.prefetchSize],
    ['Meta Compressor', blob.metaCompression],
    ['Meta Offset', blob.metaOffset],
    ['Meta Compressed Size', blob.metaCompressedSize],
    ['Meta Uncompressed Size', blob.metaUncompressedSize],
    ['ToC Digest', Buffer.from(blob.tocDigest ?? new Uint8Array(32)).toString('hex')],
    ['ToC Size', blob.tocSize],
  ]
  return `\n${rows.map(([label, value]) => `${`${label}:`.padEnd(24)}${value}\n`).join('')}`
}
