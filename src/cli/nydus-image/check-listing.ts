import { quoted } from '../../builder/index.ts'
import { BLOB_FEATURES, type BlobInfo, ChunkInfo } from '../../blob/index.ts'
import {
  Attributes,
  type Bootstrap,
  type ChunkSpan,
  isType,
  listChunks,
  MODE,
  readSpanChunk,
  walkBootstrap,
} from '../../rafs/index.ts'

/** The original's words for features, in its order. */
const FEATURE_WORDS: ReadonlyArray<readonly [number, string]> = [
  [BLOB_FEATURES.ALIGNED, 'aligned'],
  [BLOB_FEATURES.BATCH, 'batch'],
  [BLOB_FEATURES.CAP_TAR_TOC, 'cap_toc'],
  [BLOB_FEATURES.INLINED_CHUNK_DIGEST, 'chunk-digest'],
  [BLOB_FEATURES.CHUNK_INFO_V2, 'chunk-v2'],
  [BLOB_FEATURES.INLINED_FS_META, 'fs-meta'],
  [BLOB_FEATURES.SEPARATE, 'separate'],
  [BLOB_FEATURES.HAS_TAR_HEADER, 'tar-header'],
  [BLOB_FEATURES.HAS_TOC, 'toc'],
  [BLOB_FEATURES.ZRAN, 'zran'],
  [BLOB_FEATURES.ENCRYPTED, 'encrypted'],
  [BLOB_FEATURES.CHUNKDICT_GENERATED, 'is-chunkdict-generated'],
]

/** One line of `check`'s result. */
export function blobLine(blob: BlobInfo): string {
  const features = FEATURE_WORDS.filter(([bit]) => (blob.features & bit) !== 0).map(([, word]) => word)
  const sizes = `compressed size ${blob.compressedSize}, uncompressed size ${blob.uncompressedSize}`
  const chunks = `chunk size: ${blob.chunkSize}, chunk count: ${blob.chunkCount}`
  return `\t ${blob.index}: ${blob.id}, ${sizes}, ${chunks}, features: ${features.join(' ')}\n`
}

/** Every inode and chunk on a line of its own, as `check -v` of the original prints them. */
export function* describeInodes(image: Bootstrap): Generator<string> {
  const attributes = new Attributes()
  const spans: ChunkSpan[] = []
  // RAFS v5 numbers what a directory holds when it comes to the directory; the root is 1.
  let next = 2
  for (const { path, ino } of walkBootstrap(image)) {
    image.attributes(ino, attributes)
    const children = childCount(image, attributes)
    const isNumbered = image.version === 5 && isType(attributes.mode, MODE.DIRECTORY)
    const isFile = isType(attributes.mode, MODE.FILE)
    const count = isFile ? listChunks(image, ino, attributes.size, spans) : 0
    yield `inode: ${inodeWords(image, path, attributes, { index: isNumbered ? next : 0, count: children })}\n`
    if (isNumbered) next += children
    yield* chunkLines(image, spans.slice(0, count))
  }
}

function inodeWords(
  image: Bootstrap,
  path: Uint8Array,
  of: Attributes,
  children: { readonly index: number; readonly count: number },
): string {
  const isSymlink = isType(of.mode, MODE.SYMLINK)
  const nameSize = path.length === 1 ? 1 : path.length - 1 - path.lastIndexOf(0x2f)
  // The original keeps the low 16 bits of the size here, for v6 whatever the inode is.
  const symlinkSize = image.version === 6 ? of.size & 0xffff : isSymlink ? of.size : 0
  const link = isSymlink ? `Some(${quoted(image.readlink(of.ino))})` : 'None'
  return [
    `${typeWord(of)} ${quoted(path)}: index 0 ino ${of.ino} real_ino ${of.ino}`,
    `child_index ${children.index} child_count ${children.count} i_nlink ${of.nlink} i_size ${of.size}`,
    `i_blocks ${of.blocks} i_name_size ${nameSize} i_symlink_size ${symlinkSize} has_xattr ${of.hasXattrs}`,
    `link ${link} i_mtime ${BigInt.asUintN(64, BigInt(of.mtime))} i_mtime_nsec ${of.mtimeNsec}`,
  ].join(' ')
}

function typeWord({ mode, nlink }: Attributes): string {
  if (isType(mode, MODE.DIRECTORY)) return 'dir'
  if (isType(mode, MODE.SYMLINK)) return 'symlink'
  if (isType(mode, MODE.FILE)) return nlink > 1 ? 'hardlink' : 'file'
  return ''
}

/** Entries of a directory, chunks of anything else. */
function childCount(image: Bootstrap, of: Attributes): number {
  if (!isType(of.mode, MODE.DIRECTORY)) {
    const hasChunks = isType(of.mode, MODE.FILE) || image.version === 6
    return hasChunks ? Math.ceil(of.size / image.chunkSize) : 0
  }
  let count = 0
  image.list(of.ino, 0, () => {
    count += 1
    return true
  })
  return count
}

function* chunkLines(image: Bootstrap, spans: readonly ChunkSpan[]): Generator<string> {
  const chunk = new ChunkInfo()
  for (const [i, span] of spans.entries()) {
    if (!readSpanChunk(image, span, chunk)) continue
    const crc = chunk.crc32c === undefined ? '' : `, crc32 0x${chunk.crc32c.toString(16)}`
    const place = `compressed ${chunk.compressedOffset}/${chunk.compressedSize}, uncompressed ${chunk.uncompressedOffset}/${chunk.uncompressedSize}`
    const id = Buffer.from(chunk.digest).toString('hex')
    yield `\t chunk: id ${id}, index ${chunk.index}, blob_index ${span.blobIndex}, file_offset ${i * image.chunkSize}, ${place}${crc}\n`
  }
}
