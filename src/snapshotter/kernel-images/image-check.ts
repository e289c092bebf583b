/** Is an image fit to be shown by the kernel, from the cache? Runs on a thread of its own: it reads and digests all of the image's data. Source: docs/containerd-nydus-grpc.md, "Images that the kernel shows". */
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync, rmSync, statSync } from 'node:fs'
import type { BlobInfo } from '../../blob/index.ts'
import { checkBootstrap } from '../../builder/index.ts'
import { type AddedPins, BlockSet, cachePath, countClaims, firstUnclaimed, pinBlocks } from '../../cache/index.ts'
import { digester } from '../../codec/index.ts'
import {
  type Bootstrap,
  type ChunkId,
  FileTree,
  hasDigests,
  isDictionary,
  loadFiles,
  type NodeId,
  openBootstrap,
  RafsError,
  writeFilesV6,
} from '../../rafs/index.ts'
import type { IdMapping } from '../id-mapping.ts'
import { type CheckedBlob, contentIdentity, placeImage } from './record.ts'

export interface CheckTask {
  /** Of the image, as a builder wrote it: nothing in it is believed. */
  readonly bootstrap: string
  /** Metadata for the kernel, written from what was read of that one. */
  readonly output: string
  readonly cacheDir: string
  readonly mapping: IdMapping | undefined
  /** Who owns files of images whose own ids mean nothing. */
  readonly uid: number
  readonly gid: number
}

/** A chunk that is not in the cache. */
export interface MissingChunk {
  readonly blobId: string
  readonly chunkCount: number
  readonly chunk: number
}

export type CheckAnswer =
  /** The metadata is written, the data is verified, and pinned from before that on. */
  | { readonly kind: 'fit'; readonly blobs: readonly CheckedBlob[]; readonly bytes: number }
  /** Not yet. */
  | { readonly kind: 'missing'; readonly missing: MissingChunk }
  /** Not now: somebody writes there and does not end, or frees what it takes of the disk. */
  | { readonly kind: 'busy'; readonly why: string }
  /** Never, as it is. */
  | { readonly kind: 'unfit'; readonly why: string }
  /** The cache has other bytes than the image; `data` is the identity of that file. */
  | { readonly kind: 'damaged'; readonly why: string; readonly blobId: string; readonly data: string }

const MAX_BOOTSTRAP = 2 ** 28
/** Their paths fit into the page of options that mount(2) takes. */
const MAX_BLOBS = 120
const BLOCK = 4096
const DIGEST_BYTES = 32
/** So long writes into the cache that are under way may take. */
const PIN_MS = 5_000
/** EROFS takes this block for a hole. */
const HOLE_BLOCK = 0xffff_ffff

class Stopped extends Error {
  readonly answer: CheckAnswer

  constructor(answer: CheckAnswer) {
    super(answer.kind)
    this.answer = answer
  }
}

interface OpenBlob {
  readonly info: BlobInfo
  readonly fd: number
  /** In the order in which they lie. */
  readonly chunks: readonly ChunkId[]
  readonly blocks: BlockSet
}

/** Never throws for what is wrong with the image or the cache. */
export async function checkImage(task: CheckTask): Promise<CheckAnswer> {
  const opened: OpenBlob[] = []
  const pins: AddedPins[] = []
  try {
    const answer = await check(task, opened, pins)
    return answer
  } catch (error) {
    for (const added of pins.reverse()) added.undo()
    rmSync(task.output, { force: true })
    if (error instanceof Stopped) return error.answer
    if (error instanceof RafsError || (error as NodeJS.ErrnoException).syscall !== undefined)
      return { kind: 'unfit', why: (error as Error).message }
    throw error
  } finally {
    for (const { fd } of opened) closeSync(fd)
  }
}

async function check(task: CheckTask, opened: OpenBlob[], pins: AddedPins[]): Promise<CheckAnswer> {
  const image = readImage(task.bootstrap)
  const { files, root, used } = loadImage(image)
  if (used.size > MAX_BLOBS) throw unfit(`it has ${used.size} blobs, of which the kernel takes ${MAX_BLOBS} in a mount`)
  checkFiles(files, root, image.chunkSize)
  for (const [index, chunks] of used) lookForMissing(task.cacheDir, blobAt(image, index), files, chunks)
  for (const [index, chunks] of used) opened.push(openBlob(task.cacheDir, blobAt(image, index), files, chunks))
  const blobs: CheckedBlob[] = []
  for (const { info, fd, blocks } of opened) {
    const of = { directory: task.cacheDir, blobId: info.id, fd, size: info.uncompressedSize }
    const added = await pinBlocks(of, blocks, PIN_MS)
    if (added === undefined)
      throw new Stopped({
        kind: 'busy',
        why: `blob ${info.id} cannot be pinned: it is being written to, or its file system has no locks`,
      })
    pins.push(added)
    const { id, chunkCount } = info
    const claims = countClaims({ directory: task.cacheDir, blobId: id, chunkCount })
    const data = contentIdentity(fstatSync(fd, { bigint: true }))
    blobs.push({ id, chunkCount, data, pins: added.identity, claims })
  }
  let bytes = 0
  for (const [at, blob] of opened.entries()) bytes += verify(files, blob, blobs[at]?.data ?? '')
  write(image, files, root, [...used.keys()], task)
  return { kind: 'fit', blobs, bytes }
}

function readImage(path: string): Bootstrap {
  const { size } = statSync(path)
  if (size > MAX_BOOTSTRAP) throw unfit(`its metadata of ${size} bytes is longer than ${MAX_BOOTSTRAP}`)
  const image = openBootstrap(readFileSync(path))
  if (image.version !== 6) throw unfit('it is RAFS v5, which is no EROFS')
  if (image.isTarfs || isDictionary(image)) throw unfit('it is no image of chunks in the cache')
  const blind = image.blobs.find((blob) => !hasDigests(blob))
  if (blind !== undefined) throw unfit(`the chunks of blob ${blind.id} have no digests`)
  for (const { object, message } of checkBootstrap(image)) throw unfit(`${object}: ${message}`)
  return image
}

/** All of its files, and for each blob that is used the chunks that are. */
function loadImage(image: Bootstrap): {
  readonly files: FileTree
  readonly root: NodeId
  readonly used: ReadonlyMap<number, ChunkId[]>
} {
  const files = new FileTree()
  const indexes = image.blobs.map((_blob, index) => index)
  const root = loadFiles(image, files, indexes)
  const used = new Map<number, ChunkId[]>()
  for (let id = 1; id < files.chunks.end; id += 1) {
    const { blobIndex } = files.chunks.at(id)
    const chunks = used.get(blobIndex)
    if (chunks === undefined) used.set(blobIndex, [id])
    else chunks.push(id)
  }
  const offset = (id: ChunkId): number => files.chunks.at(id).uncompressedOffset
  for (const chunks of used.values()) chunks.sort((a, b) => offset(a) - offset(b))
  return { files, root, used: new Map([...used].sort(([a], [b]) => a - b)) }
}

/** The kernel reads whole chunks where files have whole ones: a shorter one would show what lies behind it. */
function checkFiles(files: FileTree, root: NodeId, chunkSize: number): void {
  for (const id of files.hybridOrder(root)) {
    if (!files.isFile(id)) continue
    const [size, count] = [files.size(id), files.chunkCount(id)]
    if (count !== Math.ceil(size / chunkSize)) throw unfit(`${files.path(id)} has ${count} chunks for ${size} bytes`)
    for (let at = 0; at < count; at += 1) {
      const found = files.chunks.at(files.chunk(id, at)).uncompressedSize
      const wanted = Math.min(chunkSize, size - at * chunkSize)
      if (found !== wanted) throw unfit(`chunk ${at} of ${files.path(id)} has ${found} bytes, it needs ${wanted}`)
    }
  }
}

function blobAt(image: Bootstrap, index: number): BlobInfo {
  const found = image.blobs[index]
  if (found === undefined) throw unfit(`there is no blob ${index}`)
  return found
}

function lookForMissing(directory: string, blob: BlobInfo, files: FileTree, chunks: readonly ChunkId[]): void {
  const { id: blobId, chunkCount } = blob
  const indexes = chunks.map((id) => files.chunks.at(id).index)
  const chunk = firstUnclaimed({ directory, blobId, chunkCount }, indexes)
  if (chunk !== undefined) throw new Stopped({ kind: 'missing', missing: { blobId, chunkCount, chunk } })
}

function openBlob(directory: string, info: BlobInfo, files: FileTree, chunks: readonly ChunkId[]): OpenBlob {
  const path = cachePath(directory, info.id, 'data')
  const blocks = new BlockSet(info.uncompressedSize)
  for (const id of chunks) {
    const { uncompressedOffset: offset, uncompressedSize: size } = files.chunks.at(id)
    const end = Math.ceil((offset + size) / BLOCK) * BLOCK
    if (offset % BLOCK !== 0 || size === 0) throw unfit(`a chunk of blob ${info.id} lies at byte ${offset}`)
    if (end > info.uncompressedSize || offset / BLOCK >= HOLE_BLOCK)
      throw unfit(`a chunk of blob ${info.id} ends at byte ${end} of ${info.uncompressedSize}, in whole blocks`)
    blocks.add(offset, size)
  }
  const fd = openData(path)
  try {
    const found = fstatSync(fd)
    if (!found.isFile() || found.size !== info.uncompressedSize)
      throw unfit(`${path} is no file of ${info.uncompressedSize} bytes`)
    return { info, fd, chunks, blocks }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

function openData(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    throw new Stopped({ kind: 'busy', why: `${path} is being freed` })
  }
}

/** Compares each chunk with its digest, and what is behind it in its last block with zeros: whoever maps the file into memory sees that too. Gives the bytes. */
function verify(files: FileTree, { info, fd, chunks }: OpenBlob, data: string): number {
  const digest = digester(info.digest)
  const found = Buffer.alloc(DIGEST_BYTES)
  const buffer = Buffer.allocUnsafe(Math.ceil(info.chunkSize / BLOCK) * BLOCK)
  let bytes = 0
  const damaged = (index: number, what: string): Stopped =>
    new Stopped({ kind: 'damaged', why: `chunk ${index} of blob ${info.id}: ${what}`, blobId: info.id, data })
  for (const id of chunks) {
    const { uncompressedOffset: offset, uncompressedSize: size, digest: wanted, index } = files.chunks.at(id)
    const block = buffer.subarray(0, Math.ceil(size / BLOCK) * BLOCK)
    if (!readWhole(fd, block, offset)) throw damaged(index, `the file ends before byte ${offset + block.length}`)
    digest.digest(block.subarray(0, size), found)
    if (!found.equals(wanted)) throw damaged(index, `its ${digest.name} digest is ${found.toString('hex')}`)
    if (block.subarray(size).some((byte) => byte !== 0)) throw damaged(index, 'there are bytes behind its end')
    bytes += size
  }
  return bytes
}

function readWhole(fd: number, into: Buffer, position: number): boolean {
  for (let done = 0; done < into.length; ) {
    const count = readSync(fd, into, done, into.length - done, position + done)
    if (count === 0) return false
    done += count
  }
  return true
}

/** The same tree with the blobs that are used, with the owners that are shown. */
function write(
  image: Bootstrap,
  files: FileTree,
  root: NodeId,
  used: readonly number[],
  { mapping, uid, gid, output }: CheckTask,
): void {
  const numbers = new Map(used.map((index, at) => [index, at]))
  for (let id = 1; id < files.chunks.end; id += 1) {
    const chunk = files.chunks.at(id)
    chunk.blobIndex = numbers.get(chunk.blobIndex) ?? 0
  }
  const shift = (id: number): number =>
    mapping !== undefined && id >= mapping.container && id < mapping.container + mapping.size
      ? mapping.host + (id - mapping.container)
      : id
  const owners = new Set<NodeId>()
  for (const id of files.hybridOrder(root)) {
    const inode = files.inode(id)
    if (owners.has(inode)) continue
    owners.add(inode)
    const own = image.explicitOwners ? { uid: files.uid(id), gid: files.gid(id) } : { uid, gid }
    files.setOwner(id, shift(own.uid), shift(own.gid))
  }
  const blobs = used.map((index, at) => ({ ...blobAt(image, index), index: at }))
  const bytes = writeFilesV6(
    { files, root, blobs },
    {
      chunkSize: image.chunkSize,
      compression: blobs[0]?.compression ?? 'none',
      digest: blobs[0]?.digest ?? 'blake3',
      explicitOwners: true,
      alwaysXattrs: false,
      prefetch: [],
    },
  )
  placeImage(output, bytes)
}

function unfit(why: string): Stopped {
  return new Stopped({ kind: 'unfit', why })
}
