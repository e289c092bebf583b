import { BLOB_FEATURES } from '../../blob/index.ts'
import type { Bootstrap } from '../bootstrap.ts'
import { ByteReader } from '../byte-reader.ts'
import { RafsError } from '../errors.ts'
import { DEVICE_SLOT, DEVICES_AT } from './layout.ts'
import { readSuperblock } from './superblock.ts'

/** An image as one disk: the bootstrap from block 0 on, then each blob's plain bytes; what lies between reads as zeros. */
export interface FlatView {
  /** Bytes. */
  readonly blockSize: number
  /** All blocks of the disk. */
  readonly blocks: number
  /** Of each blob, in table order; ascending, apart from each other. */
  readonly devices: ReadonlyArray<{ readonly startBlock: number; readonly blocks: number }>
}

/** Where the blobs of a bootstrap lie on its disk. Source: docs/formats/rafs-v6.md, "Device slots". Throws RafsError 'UNSUPPORTED' when it has no such view, 'BAD_TABLE' for a crafted one. */
export function flatView(bytes: Uint8Array, image: Bootstrap): FlatView {
  if (image.version !== 6)
    throw new RafsError(
      'UNSUPPORTED',
      'RAFSv5 image is not supported: only a RAFS v6 bootstrap is a file system of its own',
    )
  const from = new ByteReader(bytes)
  const { blockSize } = readSuperblock(from, undefined)
  let end = bytes.length / blockSize
  const devices = image.blobs.map(({ id, features }, index) => {
    const slot = DEVICES_AT + index * DEVICE_SLOT.size
    const blocks = from.u32(slot + DEVICE_SLOT.blocks)
    const startBlock = from.u32(slot + DEVICE_SLOT.mappedBlock)
    if (startBlock === 0)
      throw new RafsError(
        'UNSUPPORTED',
        `blob ${id} has no place on a disk: the image was built by an old tool; build it again`,
      )
    if (startBlock < end || startBlock + blocks > 0xffff_ffff)
      throw new RafsError(
        'BAD_TABLE',
        `blob ${id} lies at block ${startBlock}, before block ${end}; the bootstrap is damaged or crafted`,
      )
    if (((features & BLOB_FEATURES.TARFS) !== 0) !== (blockSize === 512))
      throw new RafsError(
        'BAD_TABLE',
        `blob ${id} does not fit blocks of ${blockSize} bytes; the bootstrap is damaged or crafted`,
      )
    end = startBlock + blocks
    return { startBlock, blocks }
  })
  return { blockSize, blocks: end, devices }
}
