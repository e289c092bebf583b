import { crc32 } from 'node:zlib'
import { BackendError } from './errors.ts'

/** docs/formats/gpt.md, "Header". */
const HEADER = {
  size: 92,
  headerSize: 12,
  sum: 16,
  own: 24,
  entries: 72,
  count: 80,
  entrySize: 84,
  entriesSum: 88,
} as const
/** docs/formats/gpt.md, "Entries". */
const ENTRY = { size: 128, type: 0, guid: 16, first: 32, last: 40, name: 56, nameBytes: 72 } as const
const SIGNATURE = 'EFI PART'
const SECTORS = [512, 4096] as const
/** UEFI asks for 16 KiB of entries at least; nobody has more than some hundred partitions. */
const MAX_TABLE_BYTES = 4 << 20
const UNUSED = '0'.repeat(32)
/** Basic data: ebd0a0a2-b9e5-4433-87c0-68b6b72699c7. */
const BASIC_DATA = 'ebd0a0a2b9e5443387c068b6b72699c7'

/** A partition that is a blob; bytes from the start of the disk. */
export interface BlobPartition {
  readonly blobId: string
  readonly offset: number
  readonly length: number
  /** Its id may be the start of a longer one. */
  readonly isShortened: boolean
}

/** A disk: its size in bytes, and what reads `length` bytes at an offset within it. */
export interface Disk {
  readonly path: string
  readonly size: number
  read(offset: number, length: number): Uint8Array
}

/** The blobs of a disk by its GUID partition table. Throws BackendError 'IO' when there is none, or one that cannot be right. */
export function readBlobPartitions(disk: Disk): BlobPartition[] {
  for (const sector of SECTORS) {
    const lastHeader = Math.floor(disk.size / sector) * sector - sector
    const table = readTable(disk, sector, sector) ?? readTable(disk, sector, lastHeader)
    if (table !== undefined) return partitionsOf(disk, sector, table)
  }
  throw unusable(disk, 'it has no GUID partition table that is whole; with "disable_gpt" the whole disk is one blob')
}

interface Table {
  readonly bytes: Uint8Array
  readonly count: number
  readonly entrySize: number
}

/** The entries that a header at `at` describes; undefined when it is no header, or when it or they are damaged. */
function readTable(disk: Disk, sector: number, at: number): Table | undefined {
  if (at < sector || at + sector > disk.size) return undefined
  const header = Buffer.from(disk.read(at, sector))
  if (header.toString('latin1', 0, 8) !== SIGNATURE) return undefined
  const size = header.readUInt32LE(HEADER.headerSize)
  if (size < HEADER.size || size > sector) return undefined
  const sum = header.readUInt32LE(HEADER.sum)
  header.writeUInt32LE(0, HEADER.sum)
  if (crc32(header.subarray(0, size)) !== sum) return undefined
  if (header.readBigUInt64LE(HEADER.own) !== BigInt(at / sector)) return undefined
  const count = header.readUInt32LE(HEADER.count)
  const entrySize = header.readUInt32LE(HEADER.entrySize)
  const bytes = count * entrySize
  const from = header.readBigUInt64LE(HEADER.entries) * BigInt(sector)
  if (entrySize < ENTRY.size || bytes > MAX_TABLE_BYTES || from + BigInt(bytes) > BigInt(disk.size)) return undefined
  const entries = disk.read(Number(from), bytes)
  return crc32(entries) === header.readUInt32LE(HEADER.entriesSum) ? { bytes: entries, count, entrySize } : undefined
}

function partitionsOf(disk: Disk, sector: number, { bytes, count, entrySize }: Table): BlobPartition[] {
  const found = new Map<string, BlobPartition>()
  const table = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let index = 0; index < count; index += 1) {
    const entry = table.subarray(index * entrySize, (index + 1) * entrySize)
    const type = guidText(entry, ENTRY.type)
    if (type === UNUSED) continue
    const partition = partitionOf(disk, sector, { entry, type, number: index + 1 })
    if (found.has(partition.blobId))
      throw unusable(disk, `two partitions are called ${JSON.stringify(partition.blobId)}`)
    found.set(partition.blobId, partition)
  }
  return [...found.values()]
}

function partitionOf(
  disk: Disk,
  sector: number,
  { entry, type, number }: { readonly entry: Buffer; readonly type: string; readonly number: number },
): BlobPartition {
  const first = entry.readBigUInt64LE(ENTRY.first)
  const last = entry.readBigUInt64LE(ENTRY.last)
  if (last < first || (last + 1n) * BigInt(sector) > BigInt(disk.size))
    throw unusable(
      disk,
      `partition ${number} (sectors ${first} to ${last}) does not lie on it: it has ${disk.size} bytes`,
    )
  const isShortened = type === BASIC_DATA
  const name = nameOf(entry)
  const blobId = isShortened ? name : `${name}${guidText(entry, ENTRY.guid)}`
  if (blobId === '') throw unusable(disk, `partition ${number} has no name, which should be its blob's id`)
  return { blobId, offset: Number(first) * sector, length: Number(last - first + 1n) * sector, isShortened }
}

function nameOf(entry: Buffer): string {
  const text = entry.toString('utf16le', ENTRY.name, ENTRY.name + ENTRY.nameBytes)
  const end = text.indexOf('\0')
  return end < 0 ? text : text.slice(0, end)
}

/** 32 hex digits, in the order in which GUIDs are written: the first three groups are numbers. */
function guidText(bytes: Buffer, at: number): string {
  const part = (from: number, to: number): Buffer => Buffer.from(bytes.subarray(at + from, at + to))
  return Buffer.concat([part(0, 4).reverse(), part(4, 6).reverse(), part(6, 8).reverse(), part(8, 16)]).toString('hex')
}

function unusable({ path }: Disk, why: string): BackendError {
  return new BackendError('IO', `cannot use disk ${path}: ${why}`, { retryable: false })
}
