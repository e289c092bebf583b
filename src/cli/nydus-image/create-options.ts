import { statSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createCipher } from '../../blob/index.ts'
import { Attributes, BuilderError, type LayerOptions, type PrefetchPatterns } from '../../builder/index.ts'
import type { ProgressMode } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { decimal, decimalOrHex } from './numbers.ts'
import { osError } from '../os-error.ts'

/** Values of `create`'s options, as the parser gives them. */
export interface CreateFlags extends CommonFlags {
  readonly type: string
  readonly bootstrap?: string
  readonly blobDir?: string
  readonly blob?: string
  readonly externalBlob?: string
  readonly blobInlineMeta?: boolean
  readonly blobId?: string
  readonly blobDataSize?: string
  readonly blobOffset?: string
  readonly chunkSize?: string
  readonly batchSize: string
  readonly compressor: 'none' | 'lz4_block' | 'zstd'
  readonly digester: 'blake3' | 'sha256'
  readonly config?: string
  readonly fsVersion: '5' | '6'
  readonly features?: string
  readonly chunkDict?: string
  readonly parentBootstrap?: string
  readonly repeatable?: boolean
  readonly whiteoutSpec: 'oci' | 'overlayfs' | 'none'
  readonly prefetchPolicy: 'fs' | 'blob' | 'none'
  readonly outputJson?: string
  readonly encrypt?: boolean
  readonly blobCacheDir?: string
  readonly attributes?: string
  readonly alignedChunk?: boolean
  readonly progress: ProgressMode
}

/** Names of types as messages have them. */
const CANONICAL: Readonly<Record<string, string>> = { directory: 'dir-rafs', stargz_index: 'estargztoc-ref' }
const MIN_CHUNK_SIZE = 0x1000
const MAX_CHUNK_SIZE = 0x100_0000
const DEFAULT_CHUNK_SIZE = 0x10_0000
/** That of tools which write eStargz. */
const DEFAULT_STARGZ_CHUNK_SIZE = 0x40_0000
/** The original's limit of the option; a v6 image holds 64. */
const MAX_BLOB_ID = 255

export function canonicalType(flags: CreateFlags): string {
  return CANONICAL[flags.type] ?? flags.type
}

function bad(message: string): BuilderError {
  return new BuilderError('BAD_OPTION', message)
}

/** Numbers and ids, in the original's order. Gives the chunk size. */
export function checkValues(flags: CreateFlags): number {
  if ((flags.blobId ?? '').length > MAX_BLOB_ID) throw bad(`blob id is limited to length ${MAX_BLOB_ID}`)
  if (flags.blobOffset !== undefined) decimal(flags.blobOffset, 'blob offset')
  const usual = canonicalType(flags) === 'estargztoc-ref' ? DEFAULT_STARGZ_CHUNK_SIZE : DEFAULT_CHUNK_SIZE
  const chunkSize = flags.chunkSize === undefined ? usual : decimalOrHex(flags.chunkSize, 'chunk size')
  if (!isPowerOfTwo(chunkSize) || chunkSize < MIN_CHUNK_SIZE || chunkSize > MAX_CHUNK_SIZE)
    throw bad(`invalid chunk size: ${chunkSize}`)
  checkBatchSize(flags, chunkSize)
  return chunkSize
}

function checkBatchSize(flags: CreateFlags, chunkSize: number): void {
  const size = decimalOrHex(flags.batchSize, 'batch size')
  if (size === 0) return
  if (flags.fsVersion === '5') throw bad('`--batch-size` with non-zero value conflicts with `--fs-version 5`')
  const type = canonicalType(flags)
  if (!['dir-rafs', 'tar-rafs', 'targz-rafs', 'estargz-rafs'].includes(type))
    throw bad(`unsupported ConversionType for batch chunk: ${type}`)
  if (!isPowerOfTwo(size) || size < MIN_CHUNK_SIZE || size > chunkSize) throw bad(`invalid batch size: ${size}`)
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0
}

/** Destinations and kinds, in the original's order: what contradicts itself is named before what this version does not do. */
export function checkPlaces(flags: CreateFlags, source: string): void {
  const type = canonicalType(flags)
  if (flags.blobCacheDir !== undefined) {
    if (['tar-tarfs', 'estargztoc-ref', 'estargz-rafs', 'estargz-ref'].includes(type))
      throw bad(`conversion type \`${type}\` conflicts with \`--blob-cache-dir\``)
    if (!isDirectory(flags.blobCacheDir)) throw bad('directory to store blob cache does not exist')
  } else if (type !== 'estargztoc-ref') checkBlobPlace(flags, type)
  if (type === 'estargztoc-ref') blobDataSize(flags)
  checkSource(type, source)
  checkTypeConflicts(flags, type)
  if (flags.features !== undefined && flags.fsVersion === '5')
    throw bad("`--features blob-toc` can't be used with `--version 5` ")
  // The original writes such an image, and its key nowhere.
  if (flags.encrypt === true && flags.fsVersion === '5')
    throw bad("`--encrypt` can't be used with `--fs-version 5`, which has no place for the key: build v6")
}

function checkBlobPlace(flags: CreateFlags, type: string): void {
  if (flags.blob !== undefined) {
    if (type === 'tar-tarfs') throw bad('conversion type `tar-tarfs` conflicts with `--blob`')
  } else if (flags.blobDir !== undefined) {
    if (!isDirectory(flags.blobDir)) throw bad('directory to store blobs does not exist')
  } else throw bad('both --blob and --blob-dir are missing, please specify one to store the generated data blob file')
}

function checkSource(type: string, source: string): void {
  const stats = type !== 'dir-rafs' && source === '-' ? undefined : statOf(source)
  if (stats === undefined) return
  if (type === 'dir-rafs') {
    if (!stats.isDirectory()) throw bad(`specified path must be a directory: ${JSON.stringify(source)}`)
  } else if (!stats.isFile() && !stats.isFIFO() && !stats.isCharacterDevice() && !stats.isSocket()) {
    throw bad(`specified path must be a regular/fifo/char_device file: ${JSON.stringify(source)}`)
  }
}

function statOf(path: string): ReturnType<typeof statSync> {
  try {
    return statSync(path)
  } catch (cause) {
    throw new BuilderError('BAD_SOURCE', `failed to access path ${JSON.stringify(path)}`, {
      cause: new Error(osError(cause)),
    })
  }
}

const REF_TYPES: ReadonlySet<string> = new Set(['targz-ref', 'estargz-ref'])

/** The layer stays the blob. */
export function isReference(flags: CreateFlags): boolean {
  return REF_TYPES.has(flags.type)
}

/** What is said when a compressor was asked for and is not used. */
export function unusedCompressor(flags: CreateFlags): string | undefined {
  const { compressor } = flags
  if (!isReference(flags) || compressor === 'zstd') return undefined
  return `only GZip is supported for conversion type ${canonicalType(flags)}, use GZip instead of ${compressor}`
}

function checkTypeConflicts(flags: CreateFlags, type: string): void {
  const isTarfs = type === 'tar-tarfs'
  if (!isTarfs && !REF_TYPES.has(type) && type !== 'estargztoc-ref') return
  const refuse = (is: boolean | undefined, option: string): void => {
    if (is === true) throw bad(`conversion type '${type}' conflicts with '${option}'`)
  }
  if (type !== 'estargztoc-ref' && flags.prefetchPolicy === 'blob')
    throw bad(`conversion type ${type} conflicts with '--prefetch-policy blob'`)
  if (flags.fsVersion === '5')
    throw bad(`'--fs-version 5' conflicts with conversion type '${type}', only V6 is supported`)
  if (REF_TYPES.has(type)) refuse((flags.blobId ?? '').trim() !== '', '--blob-id')
  if (isTarfs || type === 'estargztoc-ref') {
    refuse(flags.chunkDict !== undefined, '--chunk-dict')
    refuse(flags.parentBootstrap !== undefined, '--parent-bootstrap')
    refuse(flags.blobInlineMeta, '--blob-inline-meta')
    refuse(flags.features !== undefined, '--features blob-toc')
    refuse(isTarfs && flags.alignedChunk, '--aligned-chunk')
  }
  refuse(flags.encrypt, '--encrypt')
}

/** Size of the eStargz layer that a table of contents is of; undefined for other types. Hexadecimal, with or without `0x`. */
export function blobDataSize(flags: CreateFlags): number | undefined {
  const { blobDataSize: text } = flags
  if (canonicalType(flags) !== 'estargztoc-ref') return undefined
  if (text === undefined) throw bad("no value specified for '--blob-data-size'")
  const size = Number.parseInt(/^(?:0x|0X)*([0-9a-fA-F]{1,13})$/.exec(text)?.[1] ?? '', 16)
  if (Number.isSafeInteger(size)) return size
  throw new BuilderError('BAD_OPTION', `invalid blob data size ${text}`, {
    cause: new Error('invalid digit found in string'),
  })
}

/** The path of `--chunk-dict PATH` or `--chunk-dict bootstrap=PATH`. */
export function chunkDictPath(argument: string): string {
  const at = argument.indexOf('=')
  if (at < 0) return argument
  if (argument.slice(0, at) !== 'bootstrap') throw bad(`invalid chunk dict type ${argument.slice(0, at)}`)
  return argument.slice(at + 1)
}

export function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
}

/** Files that are marked as external; undefined when nothing is said of such. Throws 'BAD_OPTION'. */
export async function readAttributes({ attributes, externalBlob }: CreateFlags): Promise<Attributes | undefined> {
  if (attributes === undefined) return externalBlob === undefined ? undefined : Attributes.NONE
  try {
    return Attributes.parse(await readFile(attributes))
  } catch (cause) {
    if (cause instanceof BuilderError) throw cause
    throw new BuilderError('BAD_OPTION', `cannot read the attributes ${attributes}`, {
      cause: new Error(osError(cause)),
    })
  }
}

export function layerOptions(flags: CreateFlags, chunkSize: number, patterns: PrefetchPatterns): LayerOptions {
  return {
    version: flags.fsVersion === '5' ? 5 : 6,
    alignedChunks: flags.alignedChunk === true,
    chunkSize,
    // As the original: a cache holds plain chunks, and describes a blob of such.
    compression: flags.blobCacheDir === undefined ? flags.compressor : 'none',
    digest: isReference(flags) ? 'sha256' : flags.digester,
    reference: isReference(flags),
    batchSize: decimalOrHex(flags.batchSize, 'batch size'),
    cipher: flags.encrypt === true ? createCipher() : undefined,
    keepOwners: flags.repeatable !== true,
    inlineBootstrap: flags.blobInlineMeta === true,
    blobToc: flags.features === 'blob-toc',
    blobId: flags.blobId === undefined || flags.blobId.trim() === '' ? undefined : flags.blobId,
    blobOffset: flags.blobOffset === undefined ? 0 : decimal(flags.blobOffset, 'blob offset'),
    whiteoutSpec: flags.whiteoutSpec,
    prefetch: { policy: flags.prefetchPolicy, paths: patterns.paths },
    dictionary: undefined,
    parent: undefined,
  }
}
