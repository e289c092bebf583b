/** Bootstraps of both versions. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { BlobError } from '../../src/blob/index.ts'
import { buildTarfsLayer } from '../../src/builder/build-tarfs.ts'
import { BuilderError, checkBootstrap, mergeImages } from '../../src/builder/index.ts'
import {
  Attributes,
  type Bootstrap,
  dumpBootstrap,
  flatView,
  openBootstrap,
  RafsError,
  readTree,
  walkBootstrap,
} from '../../src/rafs/index.ts'
import * as v5 from '../../src/rafs/v5/layout.ts'
import * as v6 from '../../src/rafs/v6/layout.ts'
import { fieldsAt, type Seed, type Target } from './target.ts'

const testdata = join(import.meta.dirname, '../../src/rafs/testdata')
/** Larger ones are read too slowly for their worth. */
const MAX_SEED_BYTES = 25_000

function seedsOf(prefix: string, fieldsOf: (bytes: Buffer) => number[]): Seed[] {
  return readdirSync(testdata)
    .filter((name) => name.startsWith(prefix) && name.endsWith('.bootstrap'))
    .map((name) => readFileSync(join(testdata, name)))
    .filter(({ length }) => length < MAX_SEED_BYTES)
    .map((bytes) => ({ bytes, fields: fieldsOf(bytes) }))
}

function fieldsV5(bytes: Buffer): number[] {
  const { SUPERBLOCK, INODE } = v5
  const at = (field: number): number => Number(bytes.readBigUInt64LE(field))
  const tables = [
    SUPERBLOCK.inodeTableAt,
    SUPERBLOCK.prefetchTableAt,
    SUPERBLOCK.blobTableAt,
    SUPERBLOCK.extendedBlobAt,
  ]
  const inodes = [...walkBootstrap(openBootstrap(bytes))].flatMap(({ ino }) => {
    const start = bytes.readUInt32LE(at(SUPERBLOCK.inodeTableAt) + (ino - 1) * 4) * 8
    return [...fieldsAt(start, INODE), start + INODE.size, start + INODE.size + 8, start + INODE.size + 16]
  })
  return [...fieldsAt(0, SUPERBLOCK), ...tables.flatMap((table) => words(at(table), 64)), ...inodes]
}

function fieldsV6(bytes: Buffer): number[] {
  const { SUPERBLOCK, SUPERBLOCK_AT, EXTENDED, EXTENDED_AT, DEVICES_AT, DEVICE_SLOT, BLOB_ENTRY, EXTENDED_INODE } = v6
  const at = (field: number): number => Number(bytes.readBigUInt64LE(EXTENDED_AT + field))
  const blockSize = 1 << (bytes[SUPERBLOCK_AT + SUPERBLOCK.blockBits] ?? 0)
  const meta = bytes.readUInt32LE(SUPERBLOCK_AT + SUPERBLOCK.metaBlock) * blockSize
  const inodes = [...walkBootstrap(openBootstrap(bytes))].flatMap(({ ino }) => {
    const start = meta + ino * v6.SLOT
    return [...fieldsAt(start, EXTENDED_INODE), ...words(start + EXTENDED_INODE.size, 64)]
  })
  return [
    ...fieldsAt(SUPERBLOCK_AT, SUPERBLOCK),
    ...fieldsAt(EXTENDED_AT, EXTENDED),
    ...fieldsAt(DEVICES_AT, DEVICE_SLOT),
    ...fieldsAt(at(EXTENDED.blobTableAt), BLOB_ENTRY),
    ...words(at(EXTENDED.chunkTableAt), 160),
    ...words(at(EXTENDED.prefetchAt), 16),
    ...inodes,
  ]
}

/** An image of blocks of 512 bytes. */
async function overTar(): Promise<Seed> {
  const tar = readFileSync(join(import.meta.dirname, '../../src/builder/testdata', 'gnu-long.tar'))
  const options = {
    chunkSize: 4096,
    keepOwners: true,
    blobId: undefined,
    prefetch: { policy: 'none', paths: [] },
  } as const
  const pieces = async function* (): AsyncGenerator<Uint8Array> {
    yield tar
  }
  const { bootstrap } = await buildTarfsLayer(pieces(), { ...options, signal: new AbortController().signal })
  const bytes = Buffer.from(bootstrap)
  return { bytes, fields: fieldsV6(bytes) }
}

/** A field every four bytes, where the first table of a kind has none of its own. */
function words(at: number, length: number): number[] {
  return at <= 0 ? [] : Array.from({ length: length / 4 }, (_unused, index) => at + index * 4)
}

const USES = [useMetadata, check, dumpLines, mergeAlone, flat]

/** What tools do with an image: mount, check, dump, merge, export; which one of them depends on the bytes. */
function readImage(bytes: Uint8Array): string {
  const image = openBootstrap(bytes)
  return USES[crc32(bytes) % USES.length]?.(image, bytes) ?? ''
}

function useMetadata(image: Bootstrap): string {
  let nodes = 0
  image.prefetch()
  for (const index of image.blobs.keys()) image.layout(index)
  const attributes = new Attributes()
  for (const { ino } of walkBootstrap(image)) {
    nodes += 1
    image.attributes(ino, attributes)
    image.xattrs(ino)
    if ((attributes.mode & 0o170000) !== 0o040000) continue
    image.parent(ino)
    image.lookup(ino, Buffer.from('etc'))
  }
  return String(nodes)
}

function check(image: Bootstrap): string {
  return [...checkBootstrap(image)].map(({ part, object, message }) => `${part} ${object} ${message}`).join()
}

function dumpLines(image: Bootstrap): string {
  readTree(image)
  return [...dumpBootstrap(image)].join()
}

function mergeAlone(image: Bootstrap): string {
  const plain = { blobId: undefined, blobSize: undefined, tocDigest: undefined, tocSize: undefined }
  const options = { parent: undefined, dictionary: undefined, whiteoutSpec: 'oci', prefetchPaths: ['/'] } as const
  return String(crc32(mergeImages([{ ...plain, name: 'layer', image }], options).bootstrap))
}

function flat(image: Bootstrap, bytes: Uint8Array): string {
  return JSON.stringify(flatView(bytes, image))
}

const refusals = [RafsError, BuilderError, BlobError]

export const BOOTSTRAPS: Readonly<Record<string, Target>> = {
  v5: { seeds: () => seedsOf('v5-', fieldsV5), read: readImage, refusals },
  v6: { seeds: async () => [...seedsOf('v6-', fieldsV6), await overTar()], read: readImage, refusals },
}
