import { BLOB_FEATURES, type BlobInfo, COMPRESSIONS, DIGESTS, MAX_BLOB_BYTES } from '../../blob/index.ts'
import { checkBlobId, INLINED_BLOB_ID } from '../blob-id.ts'
import type { ByteReader } from '../byte-reader.ts'
import { CHUNK_RECORD, MAX_CHUNKS } from '../chunk-record.ts'
import { RafsError } from '../errors.ts'
import { checkFlags, SUPER_FLAGS } from '../super-flags.ts'
import {
  AES_128_XTS,
  BLOB_ENTRY,
  BLOCK_SIZE,
  DEVICE_SLOT,
  DEVICES_AT,
  EROFS_MAGIC,
  EXTENDED,
  EXTENDED_AT,
  FEATURE_RAFS_V6,
  FEATURES_INCOMPAT,
  MAX_META,
  MAX_BLOB_UNCOMPRESSED,
  SUPERBLOCK,
  SUPERBLOCK_AT,
  TARFS_BLOCK_SIZE,
} from './layout.ts'

/** Both superblocks of a v6 bootstrap and its blob table, checked. Offsets and sizes in bytes. */
export interface SuperblockV6 {
  readonly blockSize: number
  /** Start of the meta area: nid 0. */
  readonly metaAt: number
  readonly rootNid: number
  readonly inodeCount: number
  readonly flags: number
  readonly chunkSize: number
  readonly isTarfs: boolean
  readonly chunkTable: { readonly at: number; readonly size: number }
  readonly prefetchTable: { readonly at: number; readonly size: number }
  readonly blobs: readonly BlobInfo[]
}

/** True when the bytes are EROFS with the RAFS v6 mark. */
export function isV6(from: ByteReader): boolean {
  return (
    from.length >= EXTENDED_AT + EXTENDED.size &&
    from.u32(SUPERBLOCK_AT) === EROFS_MAGIC &&
    (from.u32(SUPERBLOCK_AT + SUPERBLOCK.featureCompat) & FEATURE_RAFS_V6) !== 0
  )
}

/** Reads and checks both superblocks and the tables' places. `inlinedId` is the real id of the blob that an inlined bootstrap calls `xxx…`. */
export function readSuperblock(from: ByteReader, inlinedId: string | undefined): SuperblockV6 {
  const { blockSize, metaAt, rootNid, devices } = readErofs(from)
  const flags = checkFlags(from.u32(EXTENDED_AT), from.u32(EXTENDED_AT + 4))
  if (bits(flags, 0xc3) !== 1 || bits(flags, 0xc) !== 1)
    throw bad('its flags do not name one compression and one digest')
  const chunkSize = from.u32(EXTENDED_AT + EXTENDED.chunkSize)
  if (chunkSize < 4096 || chunkSize > 0x100_0000 || (chunkSize & (chunkSize - 1)) !== 0)
    throw bad(`its chunk size ${chunkSize} is no power of two from 4 KiB to 16 MiB`)
  const blobTable = table(
    from,
    'blob table',
    EXTENDED.blobTableAt,
    from.u32(EXTENDED_AT + EXTENDED.blobTableSize),
    BLOB_ENTRY.size,
  )
  const chunkTable = table(
    from,
    'chunk table',
    EXTENDED.chunkTableAt,
    from.u64(EXTENDED_AT + EXTENDED.chunkTableSize),
    CHUNK_RECORD.size,
  )
  const prefetchTable = readPrefetchPlace(from)
  const isTarfs = (flags & SUPER_FLAGS.TARFS_MODE) !== 0
  if (isTarfs !== (blockSize === TARFS_BLOCK_SIZE))
    throw bad(`its blocks have ${blockSize} bytes, which its flags belie`)
  const count = blobTable.size / BLOB_ENTRY.size
  if (count !== devices) throw bad(`it has ${devices} device slots and ${count} blobs`)
  const blobs = Array.from({ length: count }, (_unused, index) =>
    readBlob(from, blobTable.at, index, { chunkSize, isTarfs, blockSize, inlinedId }),
  )
  const inodeCount = from.u64(SUPERBLOCK_AT + SUPERBLOCK.inodes)
  return { blockSize, metaAt, rootNid, inodeCount, flags, chunkSize, isTarfs, chunkTable, prefetchTable, blobs }
}

function readErofs(from: ByteReader): { blockSize: number; metaAt: number; rootNid: number; devices: number } {
  const at = SUPERBLOCK_AT
  const blockBits = from.u8(at + SUPERBLOCK.blockBits)
  if (blockBits !== 12 && blockBits !== 9) throw bad(`its blocks have 2^${blockBits} bytes; 4096 and 512 are known`)
  const blockSize = 1 << blockBits
  if (from.length < BLOCK_SIZE || from.length % blockSize !== 0)
    throw bad(`its length ${from.length} is no multiple of ${blockSize}; it is truncated`)
  if (from.u32(at + SUPERBLOCK.checksum) !== 0) throw bad('it has an EROFS checksum, RAFS has none')
  if (from.u32(at + SUPERBLOCK.featureIncompat) !== FEATURES_INCOMPAT)
    throw bad('its EROFS features are not those of RAFS')
  if (
    from.u32(at + SUPERBLOCK.xattrBlock) !== 0 ||
    from.u8(at + SUPERBLOCK.extraSlots) !== 0 ||
    from.u16(at + SUPERBLOCK.union) !== 0
  )
    throw bad('it uses EROFS fields that RAFS leaves 0')
  if (from.u16(at + SUPERBLOCK.deviceSlot) !== DEVICES_AT / DEVICE_SLOT.size)
    throw bad('its device slots are not where RAFS has them')
  const metaAt = from.u32(at + SUPERBLOCK.metaBlock) * blockSize
  if (metaAt > from.length) throw bad(`its inodes start at ${metaAt}, outside its ${from.length} bytes`)
  return {
    blockSize,
    metaAt,
    rootNid: from.u16(at + SUPERBLOCK.rootNid),
    devices: from.u16(at + SUPERBLOCK.extraDevices),
  }
}

function bits(flags: number, mask: number): number {
  let count = 0
  for (let rest = flags & mask; rest !== 0; rest &= rest - 1) count++
  return count
}

function table(
  from: ByteReader,
  name: string,
  field: number,
  size: number,
  entrySize: number,
): { at: number; size: number } {
  const at = from.u64(EXTENDED_AT + field)
  if (size === 0) return { at, size }
  if (size % entrySize !== 0)
    throw new RafsError('BAD_TABLE', `the ${name} has ${size} bytes, no multiple of ${entrySize}; the image is damaged`)
  if (at < BLOCK_SIZE || at % BLOCK_SIZE !== 0 || at + size > from.length)
    throw new RafsError(
      'BAD_TABLE',
      `the ${name} lies at ${at} with ${size} bytes, outside the bootstrap's ${from.length}; the image is damaged`,
    )
  return { at, size }
}

function readPrefetchPlace(from: ByteReader): { at: number; size: number } {
  const at = from.u64(EXTENDED_AT + EXTENDED.prefetchAt)
  const size = from.u32(EXTENDED_AT + EXTENDED.prefetchSize)
  // Images of old builders have a size and no place: no table.
  if (at === 0 || size === 0) return { at: 0, size: 0 }
  if (size % 4 !== 0 || at % 8 !== 0 || at < BLOCK_SIZE || at + size > from.length)
    throw new RafsError('BAD_TABLE', `the prefetch table lies at ${at} with ${size} bytes; the image is damaged`)
  return { at, size }
}

interface BlobContext {
  readonly chunkSize: number
  readonly isTarfs: boolean
  readonly blockSize: number
  readonly inlinedId: string | undefined
}

function readBlob(from: ByteReader, tableAt: number, index: number, context: BlobContext): BlobInfo {
  const at = tableAt + index * BLOB_ENTRY.size
  const stored = checkBlobId(from.text(at + BLOB_ENTRY.id, BLOB_ENTRY.idLength))
  const id = stored === INLINED_BLOB_ID && context.inlinedId !== undefined ? checkBlobId(context.inlinedId) : stored
  const wrong = (what: string): RafsError =>
    new RafsError('BAD_TABLE', `blob ${index} (${id}): ${what}; the bootstrap is damaged or crafted`)
  if (from.u32(at + BLOB_ENTRY.index) !== index)
    throw wrong(`its entry says that it is number ${from.u32(at + BLOB_ENTRY.index)}`)
  if (from.u32(at + BLOB_ENTRY.chunkSize) !== context.chunkSize)
    throw wrong(`its chunk size is not the image's ${context.chunkSize}`)
  const features = from.u32(at + BLOB_ENTRY.features)
  if ((features & 0x8000_f000) !== 0) throw wrong(`its features 0x${features.toString(16)} have unknown bits`)
  if (((features & BLOB_FEATURES.ALIGNED) !== 0) === context.isTarfs)
    throw wrong('its alignment is not that of the image')
  if (((features & BLOB_FEATURES.TARFS) !== 0) !== context.isTarfs)
    throw wrong('it is a plain tar in an image of others, or the other way round')
  const compression = COMPRESSIONS[from.u32(at + BLOB_ENTRY.compression)]
  const digest = DIGESTS[from.u32(at + BLOB_ENTRY.digest)]
  const metaCompression = COMPRESSIONS[from.u32(at + BLOB_ENTRY.metaCompression)]
  if (compression === undefined || digest === undefined || metaCompression === undefined)
    throw wrong('it names an unknown algorithm')
  const chunkCount = from.u32(at + BLOB_ENTRY.chunkCount)
  const compressedSize = from.u64(at + BLOB_ENTRY.compressedSize)
  const uncompressedSize = from.u64(at + BLOB_ENTRY.uncompressedSize)
  if (chunkCount > MAX_CHUNKS || compressedSize > MAX_BLOB_BYTES || uncompressedSize > MAX_BLOB_UNCOMPRESSED)
    throw wrong('its sizes are beyond the format')
  if (from.u32(DEVICES_AT + index * DEVICE_SLOT.size + DEVICE_SLOT.blocks) === 0)
    throw wrong('its device has no blocks')
  const meta = {
    metaOffset: from.u64(at + BLOB_ENTRY.metaOffset),
    metaCompressedSize: from.u64(at + BLOB_ENTRY.metaCompressedSize),
    metaUncompressedSize: from.u64(at + BLOB_ENTRY.metaUncompressedSize),
    metaCompression,
  }
  checkMetaSize(meta, features, chunkCount, context.isTarfs, wrong)
  const tocDigest = from.view(at + BLOB_ENTRY.tocDigest, 32).slice()
  const tocSize = from.u32(at + BLOB_ENTRY.tocSize)
  const isUnknown = tocDigest.every((byte) => byte === 0)
  return {
    index,
    id,
    features,
    chunkSize: context.chunkSize,
    chunkCount,
    compression,
    digest,
    compressedSize,
    uncompressedSize,
    prefetchSize: 0,
    ...meta,
    tocSize,
    tocDigest: isUnknown ? undefined : tocDigest,
    ...readMetaBlob(from, at, features, context.inlinedId),
    ...readCipher(from, at, features, wrong),
  }
}

/** SEPARATE blobs name the blob that their compression context lies in; encrypted ones keep their key in the same bytes. */
function readMetaBlob(
  from: ByteReader,
  at: number,
  features: number,
  inlinedId: string | undefined,
): Pick<BlobInfo, 'metaBlobDigest' | 'metaBlobSize' | 'metaBlobId'> {
  if ((features & BLOB_FEATURES.SEPARATE) === 0) return {}
  const metaBlobDigest = Uint8Array.from(from.view(at + BLOB_ENTRY.metaDigest, 32))
  const isInlined = (features & BLOB_FEATURES.INLINED_FS_META) !== 0
  const metaBlobId = isInlined ? inlinedId : Buffer.from(metaBlobDigest).toString('hex')
  return { metaBlobDigest, metaBlobSize: from.u64(at + BLOB_ENTRY.metaSize), metaBlobId }
}

function readCipher(
  from: ByteReader,
  at: number,
  features: number,
  wrong: (what: string) => RafsError,
): Pick<BlobInfo, 'cipher'> {
  if ((features & BLOB_FEATURES.ENCRYPTED) === 0) return {}
  const algorithm = from.u32(at + BLOB_ENTRY.cipher)
  if (algorithm !== AES_128_XTS) throw wrong(`it is encrypted with cipher ${algorithm}; ${AES_128_XTS} is known`)
  const key = Buffer.from(from.view(at + BLOB_ENTRY.cipherKey, 32))
  if (key.subarray(0, 16).equals(key.subarray(16))) throw wrong('the halves of its key are equal')
  return { cipher: { key, iv: from.view(at + BLOB_ENTRY.cipherIv, 16).slice() } }
}

/** The rules of "Blob table", last part: how long the chunk infos are for the features. */
function checkMetaSize(
  meta: Pick<BlobInfo, 'metaCompressedSize' | 'metaUncompressedSize'>,
  features: number,
  chunkCount: number,
  isTarfs: boolean,
  wrong: (what: string) => RafsError,
): void {
  const isV2 = (features & BLOB_FEATURES.CHUNK_INFO_V2) !== 0
  const hasContexts = (features & (BLOB_FEATURES.BATCH | BLOB_FEATURES.ZRAN | BLOB_FEATURES.ENCRYPTED)) !== 0
  const size = meta.metaUncompressedSize
  if (hasContexts && !isV2) throw wrong('it has contexts but chunk infos of version 1')
  if (size > MAX_META || meta.metaCompressedSize > MAX_META) throw wrong('its chunk infos are beyond the format')
  if (isTarfs || (features & BLOB_FEATURES.CHUNKDICT_GENERATED) !== 0) return
  const fits = isV2 ? (hasContexts ? size >= 24 * chunkCount : size === 24 * chunkCount) : size === 16 * chunkCount
  if (!fits) throw wrong(`its ${chunkCount} chunks do not fit chunk infos of ${size} bytes`)
  if (meta.metaCompressedSize > size) throw wrong('its chunk infos are longer compressed than plain')
}

function bad(why: string): RafsError {
  return new RafsError('BAD_SUPERBLOCK', `the bootstrap is not a valid RAFS v6 image: ${why}`)
}
