/** Disks whose partition tables name blobs. */
import { crc32 } from 'node:zlib'
import { BASIC_DATA, diskOf, split } from '../../src/backend/testing/disk-image.ts'
import { BackendError } from '../../src/backend/index.ts'
import { readBlobPartitions } from '../../src/backend/gpt.ts'
import type { Target } from './target.ts'

const TABLE_BYTES = 128 * 128
const ENTRY_FIELDS = [0, 16, 32, 36, 40, 44, 56, 58]

/** The second table is left away, so that the first one counts. */
function disk(): Uint8Array {
  const parts = [
    { ...split('5'.repeat(64)), bytes: Buffer.alloc(1000) },
    { name: 'layer', guid: split('6'.repeat(64)).guid, type: BASIC_DATA, bytes: Buffer.alloc(700) },
  ]
  const whole = diskOf(parts)
  return whole.subarray(0, whole.length - 512 - TABLE_BYTES)
}

function read(bytes: Uint8Array): string {
  const at = (offset: number, length: number): Uint8Array => {
    if (offset < 0 || offset + length > bytes.length)
      throw new RangeError(`${length} bytes at ${offset} are not on the disk`)
    return bytes.subarray(offset, offset + length)
  }
  const found = readBlobPartitions({ path: 'disk', size: bytes.length, read: at })
  for (const { offset, length } of found) at(offset, length)
  return found.map(({ blobId, offset, length }) => `${blobId} ${offset} ${length}`).join('\n')
}

/** Both sums, of tables that are where they were. */
function repair(bytes: Uint8Array): void {
  if (bytes.length < 1024 + TABLE_BYTES) return
  const header = Buffer.from(bytes.buffer, bytes.byteOffset + 512, 512)
  header.writeUInt32LE(crc32(bytes.subarray(1024, 1024 + TABLE_BYTES)), 88)
  header.writeUInt32LE(0, 16)
  header.writeUInt32LE(crc32(header.subarray(0, 92)), 16)
}

export const DISKS: Readonly<Record<string, Target>> = {
  'partition table': {
    seeds: () => [
      {
        bytes: disk(),
        fields: [512, 524, 536, 584, 592, 596, ...ENTRY_FIELDS.flatMap((field) => [1024 + field, 1152 + field])],
      },
    ],
    read,
    refusals: [BackendError],
    repair,
  },
}
