import { ChunkInfo } from '../blob/index.ts'
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
import { blobsText, type InspectedImage, statsText } from './inspect-tables.ts'
import { type FoundPath, resolvePath } from './inspect-path.ts'
import { quoted, unquoted } from './quoted.ts'

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

const SLASH = 0x2f

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
  readonly #source: InspectedImage
  readonly #image: Bootstrap
  readonly #isRequest: boolean
  readonly #attributes = new Attributes()
  /** Directories from the root to the current one. */
  #path: readonly Ino[]

  constructor(source: InspectedImage, isRequest: boolean) {
    const { image } = source
    this.#source = source
    this.#image = image
    this.#isRequest = isRequest
    this.#path = [image.root]
  }

  /** What a directory holds, for completion; nothing for what is none. */
  entries(directory: Buffer): Array<{ readonly name: Buffer; readonly isDirectory: boolean }> {
    const found = this.#resolve(directory)
    if (found === undefined) return []
    this.#image.attributes(found.ino, this.#attributes)
    if (!isType(this.#attributes.mode, MODE.DIRECTORY)) return []
    return this.#children(found.ino).map(({ name, type }) => ({
      name,
      isDirectory: type === directoryType(MODE.DIRECTORY),
    }))
  }

  execute(line: string): InspectAnswer {
    const { command, argument } = wordsOf(line)
    const done = (text: string, value: unknown = null): InspectAnswer => ({ text, value, status: 'done' })
    if (command === '') return done('')
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
          ? done(this.#chunk(numberOf(argument)))
          : { text: 'Wrong OFFSET is specified. Is it a valid u64 value?\n', value: null, status: 'bad-argument' }
      if (command === 'icheck')
        return isNumber(argument)
          ? done(this.#inode(numberOf(argument)))
          : { text: 'Wrong INODE is specified. Is it a inode number?\n', value: null, status: 'bad-argument' }
    }
    return { text: `Unsupported command: ${command}\n${USAGE}`, value: null, status: 'unknown' }
  }

  get #directory(): Ino {
    return this.#path.at(-1) ?? this.#image.root
  }

  #children(directory: Ino): Array<{ readonly name: Buffer; readonly ino: Ino; readonly type: number }> {
    const children: Array<{ name: Buffer; ino: Ino; type: number }> = []
    this.#image.list(directory, 0, (name, ino, type) => {
      children.push({ name: Buffer.from(name), ino, type })
      return true
    })
    return children
  }

  #stats(): InspectAnswer {
    if (!this.#isRequest) return { text: statsText(this.#source), value: null, status: 'done' }
    return { text: '', value: { inodes_count: this.#image.inodeCount }, status: 'done' }
  }

  #list(): string {
    const signs = new Map([
      [directoryType(MODE.FILE), '-'],
      [directoryType(MODE.DIRECTORY), 'd'],
      [directoryType(MODE.SYMLINK), 'l'],
    ])
    return this.#children(this.#directory)
      .map(({ name, ino, type }) => `${signs.get(type) ?? ' '}    ${String(ino).padEnd(8)} ${quoted(name)}\n`)
      .join('')
  }

  #changeDirectory(argument: Buffer): string {
    const found = this.#resolve(argument)
    if (found === undefined) return `${argument.toString()} is \n`
    this.#image.attributes(found.ino, this.#attributes)
    if (!isType(this.#attributes.mode, MODE.DIRECTORY)) return `${argument.toString()} is not a directory\n`
    this.#path = [...found.directories, ...(found.ino === found.directories.at(-1) ? [] : [found.ino])]
    return ''
  }

  #stat(argument: Buffer): string {
    const found = this.#resolve(argument)
    if (found === undefined) return ''
    const isDirectory = found.ino === found.directories.at(-1)
    const described = isDirectory
      ? this.#describe(found.ino, directoryName(found.ino, this.#image), this.#image.parent(found.ino))
      : this.#describe(found.ino, found.name, found.directories.at(-1) ?? this.#image.root)
    return isType(this.#attributes.mode, MODE.FILE)
      ? `${described}  Chunk list:\n${this.#chunkList(found.ino)}`
      : described
  }

  #resolve(path: Uint8Array): FoundPath | undefined {
    return resolvePath(this.#image, this.#path, path)
  }

  #describe(ino: Ino, name: Uint8Array, parent: Ino): string {
    this.#image.attributes(ino, this.#attributes)
    const { mode, nlink, uid, gid, size, mtime, mtimeNsec, blocks } = this.#attributes
    const rows: Array<readonly [string, string | number]> = [
      ['Inode Number', ino],
      ['Name', quoted(name)],
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
    if (!this.#isRequest) return { text: blobsText(this.#source), value: null, status: 'done' }
    const { blobs } = this.#image
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
        `Inode Number:${String(ino).padStart(10)} | Path: ${quoted(Buffer.from((wanted.get(ino) ?? []).join(' ')))} \n`,
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
File: ${padded(name)} Parent Path: ${padded(parent)}
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
      const above = entry.path.subarray(0, Math.max(0, entry.path.lastIndexOf(SLASH)))
      const parent = resolvePath(this.#image, [this.#image.root], above)?.ino ?? this.#image.root
      found.push(`${text(entry.path)}\n`, this.#describe(ino, entry.name, parent))
    }
    return found.join('')
  }
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('utf8')
}

/** To 32 characters, as the original counts them. */
function padded(name: string): string {
  return name + ' '.repeat(Math.max(0, 32 - Array.from(name).length))
}

/** As the original reads 64-bit numbers. */
function isNumber(argument: Buffer): boolean {
  return (
    /^\+?[0-9]{1,64}$/.test(argument.toString('latin1')) &&
    BigInt(argument.toString('latin1').replace('+', '')) < 2n ** 64n
  )
}

function numberOf(argument: Buffer): number {
  return Number(argument.toString('latin1'))
}

/** A command and its argument: the next word, or a name in quotes as `ls` shows it. */
function wordsOf(line: string): { readonly command: string; readonly argument: Buffer | undefined } {
  const [, command = '', rest = ''] = /^[\t\n\f\r ]*([^\t\n\f\r ]*)[\t\n\f\r ]*(.*?)[\t\n\f\r ]*$/s.exec(line) ?? []
  if (rest === '') return { command, argument: undefined }
  const [word = ''] = rest.split(/[\t\n\f\r ]/)
  return { command, argument: unquoted(rest) ?? Buffer.from(word) }
}

function directoryName(directory: Ino, image: Bootstrap): Uint8Array {
  if (directory === image.root) return Buffer.from('/')
  let found = Buffer.alloc(0)
  image.list(image.parent(directory), 0, (name, ino) => {
    if (ino === directory) found = Buffer.from(name)
    return found.length === 0
  })
  return found
}
