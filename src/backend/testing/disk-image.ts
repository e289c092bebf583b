/** For tests: images of disks with a GUID partition table, as the UEFI specification has it. */
import { crc32 } from 'node:zlib'

export const LINUX_DATA = '0fc63daf-8483-4772-8e79-3d69d8477de4'
export const BASIC_DATA = 'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7'

/** A partition to make. */
export interface Part {
  readonly name: string
  readonly guid: string
  readonly type?: string
  readonly bytes: Uint8Array
  /** What the entry says instead of the truth. */
  readonly sectors?: readonly [first: bigint, last: bigint]
}

/** A GUID as it is stored. */
function stored(guid: string): Buffer {
  const [a = '', b = '', c = '', ...rest] = guid.split('-').map((part) => Buffer.from(part, 'hex'))
  return Buffer.concat([Buffer.from(a).reverse(), Buffer.from(b).reverse(), Buffer.from(c).reverse(), ...rest])
}

/** A blob id as a name of 32 characters and a GUID. */
export function split(id: string): { name: string; guid: string } {
  return { name: id.slice(0, 32), guid: id.slice(32).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5') }
}

/** A disk image with both tables. */
export function diskOf(parts: readonly Part[], sector = 512): Buffer {
  const table = Buffer.alloc(128 * 128)
  const data: Buffer[] = []
  let lba = 2 + table.length / sector
  parts.forEach(({ name, guid, type = LINUX_DATA, bytes, sectors }, index) => {
    const count = Math.ceil(bytes.length / sector)
    const entry = table.subarray(index * 128, (index + 1) * 128)
    stored(type).copy(entry, 0)
    stored(guid).copy(entry, 16)
    const [first, last] = sectors ?? [BigInt(lba), BigInt(lba + count - 1)]
    entry.writeBigUInt64LE(first, 32)
    entry.writeBigUInt64LE(last, 40)
    entry.write(name, 56, 72, 'utf16le')
    data.push(Buffer.concat([bytes, Buffer.alloc(count * sector - bytes.length)]))
    lba += count
  })
  const tableSectors = table.length / sector
  const header = (own: number, other: number, entries: number): Buffer => {
    const bytes = Buffer.alloc(sector)
    bytes.write('EFI PART')
    bytes.writeUInt32LE(0x10000, 8)
    bytes.writeUInt32LE(92, 12)
    for (const [at, value] of [
      [24, own],
      [32, other],
      [40, 2 + tableSectors],
      [48, lba - 1],
      [72, entries],
    ] as const)
      bytes.writeBigUInt64LE(BigInt(value), at)
    bytes.writeUInt32LE(128, 80)
    bytes.writeUInt32LE(128, 84)
    bytes.writeUInt32LE(crc32(table), 88)
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 92)), 16)
    return bytes
  }
  const end = lba + tableSectors
  return Buffer.concat([Buffer.alloc(sector), header(1, end, 2), table, ...data, table, header(end, 1, lba)])
}
