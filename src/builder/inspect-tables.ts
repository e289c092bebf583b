import { BLOB_FEATURES, type BlobInfo } from '../blob/index.ts'
import { type Bootstrap, mappedBlocks, openBootstrap, superblockFields } from '../rafs/index.ts'

/** An image, and the bytes that it is read from. */
export interface InspectedImage {
  readonly image: Bootstrap
  readonly bytes: Uint8Array
}

/** The original's names of flags, its spelling included. */
const SUPER_FLAGS: ReadonlyArray<readonly [number, string]> = [
  [0x1, 'COMPRESSION_NONE'],
  [0x2, 'COMPRESSION_LZ4'],
  [0x4, 'HASH_BLAKE3'],
  [0x8, 'HASH_SHA256'],
  [0x10, 'EXPLICIT_UID_GID'],
  [0x20, 'HAS_XATTR'],
  [0x40, 'COMPRESSION_GZIP'],
  [0x80, 'COMPRESSION_ZSTD'],
  [0x100, 'INLINED_CHUNK_DIGEST'],
  [0x200, 'TARTFS_MODE'],
  [0x100_0000, 'ENCRYPTION_NONE'],
  [0x200_0000, 'ENCRYPTION_ASE_128_XTS'],
  [0x400_0000, 'PRESERVED_COMPAT_5'],
  [0x800_0000, 'PRESERVED_COMPAT_4'],
  [0x1000_0000, 'PRESERVED_COMPAT_3'],
  [0x2000_0000, 'PRESERVED_COMPAT_2'],
  [0x4000_0000, 'PRESERVED_COMPAT_1'],
  [0x8000_0000, 'PRESERVED_COMPAT_0'],
]

/** In the original's order. */
const FEATURES: ReadonlyArray<readonly [number, string]> = [
  [BLOB_FEATURES.ALIGNED, 'ALIGNED'],
  [BLOB_FEATURES.INLINED_FS_META, 'INLINED_FS_META'],
  [BLOB_FEATURES.CHUNK_INFO_V2, 'CHUNK_INFO_V2'],
  [BLOB_FEATURES.ZRAN, 'ZRAN'],
  [BLOB_FEATURES.SEPARATE, 'SEPARATE'],
  [BLOB_FEATURES.INLINED_CHUNK_DIGEST, 'INLINED_CHUNK_DIGEST'],
  [BLOB_FEATURES.TARFS, 'TARFS'],
  [BLOB_FEATURES.BATCH, 'BATCH'],
  [BLOB_FEATURES.ENCRYPTED, 'ENCRYPTED'],
  [BLOB_FEATURES.HAS_TAR_HEADER, 'HAS_TAR_HEADER'],
  [BLOB_FEATURES.HAS_TOC, 'HAS_TOC'],
  [BLOB_FEATURES.CAP_TAR_TOC, 'CAP_TAR_TOC'],
  [0x8000_0000, '_V5_NO_EXT_BLOB_TABLE'],
  [BLOB_FEATURES.CHUNKDICT_GENERATED, 'IS_CHUNKDICT_GENERATED'],
  [0x400, 'IS_SEPARATED_WITH_PREFETCH_FILES'],
  [BLOB_FEATURES.EXTERNAL, 'EXTERNAL'],
]

type Rows = ReadonlyArray<readonly [string, string | number]>

/** `stats`, with the line of blanks that the original ends it with. */
export function statsText({ image, bytes }: InspectedImage): string {
  const fields = superblockFields(bytes)
  const rows: Rows = [
    ['Version', image.version],
    ['Inodes Count', image.inodeCount],
    ['Chunk Size', `${Math.floor(image.chunkSize / 1024)}KB`],
    ['Root Inode', image.root],
    ['Flags', words(fields.flags, SUPER_FLAGS)],
    ['Blob table offset', hex(fields.blob_table_offset)],
    ['Blob table size', hex(fields.blob_table_size)],
    ['Prefetch table offset', hex(fields.prefetch_table_offset)],
    ['Prefetch table entries', hex(fields.prefetch_table_entries)],
    ['Chunk table offset', hex(fields.chunk_table_offset)],
    ['Chunk table size', hex(fields.chunk_table_size)],
  ]
  return `\n${rows.map(([name, value]) => `    ${`${name}:`.padEnd(24)}${value}\n`).join('')}    \n`
}

/** `blobs`. */
export function blobsText({ image, bytes }: InspectedImage): string {
  const stored = openBootstrap(bytes).blobs
  const blocks = mappedBlocks(bytes)
  return image.blobs.map((blob, index) => blobText(blob, stored[index]?.id ?? blob.id, blocks[index] ?? 0)).join('')
}

function blobText(blob: BlobInfo, rawId: string, mappedBlock: number): string {
  const rows: Rows = [
    ['Blob Index', blob.index],
    ['Blob ID', blob.id],
    ['Raw Blob ID', rawId],
    ['Blob Size', blob.compressedSize],
    ['Compressed Data Size', dataSize(blob)],
    ['Uncompressed Data Size', blob.uncompressedSize],
    ['Mapped Block Address', mappedBlock],
    ['Features', words(blob.features, FEATURES)],
    ['Compressor', blob.compression],
    ['Digester', blob.digest === 'blake3' ? 'Blake3' : 'Sha256'],
    ['Cipher', (blob.features & BLOB_FEATURES.ENCRYPTED) === 0 ? 'None' : 'Aes128Xts'],
    ['Chunk Size', hex(blob.chunkSize)],
    ['Chunk Count', blob.chunkCount],
    ['Prefetch Table Offset', 0],
    ['Prefetch Table Size', blob.prefetchSize],
    ['Meta Compressor', blob.metaCompression],
    ['Meta Offset', blob.metaOffset],
    ['Meta Compressed Size', blob.metaCompressedSize],
    ['Meta Uncompressed Size', blob.metaUncompressedSize],
    ['ToC Digest', digestText(blob.tocDigest)],
    ['ToC Size', blob.tocSize],
    ['RAFS Blob Digest', digestText(blob.metaBlobDigest)],
    ['RAFS Blob Size', blob.metaBlobSize ?? 0],
  ]
  return `\n${rows.map(([label, value]) => `${`${label}:`.padEnd(24)}${value}\n`).join('')}`
}

/** Bytes of chunk data in the blob, without what lies behind them: a tar header, chunk infos. */
function dataSize({ features, compressedSize, metaOffset, metaCompressedSize }: BlobInfo): number {
  const isOld = (features & BLOB_FEATURES.CAP_TAR_TOC) === 0
  if (isOld || (features & BLOB_FEATURES.SEPARATE) !== 0) return compressedSize
  const end = metaCompressedSize > 0 ? metaOffset : compressedSize
  return (features & BLOB_FEATURES.HAS_TAR_HEADER) === 0 ? end : Math.max(0, end - 0x200)
}

function words(flags: number, names: ReadonlyArray<readonly [number, string]>): string {
  const known = names.filter(([bit]) => (flags & bit) !== 0)
  const rest = known.reduce((left, [bit]) => left & ~bit, flags) >>> 0
  return [...known.map(([, name]) => name), ...(rest === 0 ? [] : [hex(rest)])].join(' | ') || '(empty)'
}

function hex(value: number): string {
  return `0x${value.toString(16)}`
}

function digestText(digest: Uint8Array | undefined): string {
  return Buffer.from(digest ?? new Uint8Array(32)).toString('hex')
}
