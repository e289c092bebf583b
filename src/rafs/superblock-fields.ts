import { ByteReader } from './byte-reader.ts'
import { RafsError } from './errors.ts'
import { SUPERBLOCK as V5 } from './v5/layout.ts'
import { isV5 } from './v5/superblock.ts'
import { DEVICE_SLOT, DEVICES_AT, EXTENDED, EXTENDED_AT, SUPERBLOCK as V6, SUPERBLOCK_AT } from './v6/layout.ts'
import { isV6 } from './v6/superblock.ts'

/** A superblock's fields as they are stored, under upstream's names; what a version does not have is 0. For people and upstream's clients, not for reading images. */
export interface SuperblockFields {
  readonly magic: number
  readonly version: number
  readonly sb_size: number
  readonly chunk_size: number
  readonly inodes_count: number
  readonly flags: number
  readonly inode_table_entries: number
  readonly inode_table_offset: number
  readonly blob_table_size: number
  readonly blob_table_offset: number
  readonly extended_blob_table_offset: number
  readonly extended_blob_table_entries: number
  readonly blob_device_table_count: number
  readonly blob_device_table_offset: number
  readonly prefetch_table_offset: number
  readonly prefetch_table_entries: number
  readonly meta_blkaddr: number
  readonly root_nid: number
  readonly chunk_table_offset: number
  readonly chunk_table_size: number
}

/** Throws RafsError 'NOT_RAFS'. */
export function superblockFields(bytes: Uint8Array): SuperblockFields {
  const from = new ByteReader(bytes)
  if (isV5(from)) return fieldsV5(from)
  if (isV6(from)) return fieldsV6(from)
  throw new RafsError('NOT_RAFS', `${bytes.length} bytes that are no RAFS bootstrap`)
}

function fieldsV5(from: ByteReader): SuperblockFields {
  return {
    magic: from.u32(V5.magic),
    version: from.u32(V5.version),
    sb_size: from.u32(V5.ownSize),
    chunk_size: from.u32(V5.blockSize),
    inodes_count: from.u64(V5.inodes),
    flags: from.u64(V5.flags),
    inode_table_entries: from.u32(V5.inodeTableEntries),
    inode_table_offset: from.u64(V5.inodeTableAt),
    blob_table_size: from.u32(V5.blobTableSize),
    blob_table_offset: from.u64(V5.blobTableAt),
    extended_blob_table_offset: from.u64(V5.extendedBlobAt),
    extended_blob_table_entries: from.u32(V5.extendedBlobEntries),
    blob_device_table_count: 0,
    blob_device_table_offset: 0,
    prefetch_table_offset: from.u64(V5.prefetchTableAt),
    prefetch_table_entries: from.u32(V5.prefetchTableEntries),
    meta_blkaddr: 0,
    root_nid: 0,
    chunk_table_offset: 0,
    chunk_table_size: 0,
  }
}

function fieldsV6(from: ByteReader): SuperblockFields {
  const ENTRY = 4
  return {
    magic: from.u32(SUPERBLOCK_AT + V6.magic),
    version: 0x600,
    sb_size: 0,
    chunk_size: from.u32(EXTENDED_AT + EXTENDED.chunkSize),
    inodes_count: from.u64(SUPERBLOCK_AT + V6.inodes),
    flags: from.u64(EXTENDED_AT + EXTENDED.flags),
    inode_table_entries: 0,
    inode_table_offset: 0,
    blob_table_size: from.u32(EXTENDED_AT + EXTENDED.blobTableSize),
    blob_table_offset: from.u64(EXTENDED_AT + EXTENDED.blobTableAt),
    extended_blob_table_offset: 0,
    extended_blob_table_entries: 0,
    blob_device_table_count: from.u16(SUPERBLOCK_AT + V6.extraDevices),
    blob_device_table_offset: DEVICES_AT,
    prefetch_table_offset: from.u64(EXTENDED_AT + EXTENDED.prefetchAt),
    prefetch_table_entries: from.u32(EXTENDED_AT + EXTENDED.prefetchSize) / ENTRY,
    meta_blkaddr: from.u32(SUPERBLOCK_AT + V6.metaBlock),
    root_nid: from.u16(SUPERBLOCK_AT + V6.rootNid),
    chunk_table_offset: from.u64(EXTENDED_AT + EXTENDED.chunkTableAt),
    chunk_table_size: from.u64(EXTENDED_AT + EXTENDED.chunkTableSize),
  }
}

/** Of each blob, the block of the flat disk at which its plain bytes begin, as the device slots say; 0 for images of old tools, and for RAFS v5. */
export function mappedBlocks(bytes: Uint8Array): number[] {
  const from = new ByteReader(bytes)
  if (!isV6(from)) return []
  const count = from.u16(SUPERBLOCK_AT + V6.extraDevices)
  return Array.from({ length: count }, (_unused, index) =>
    from.u32(DEVICES_AT + index * DEVICE_SLOT.size + DEVICE_SLOT.mappedBlock),
  )
}
