import type { BlobReader } from '../backend/index.ts'
import { type ChunkCache, type ChunkToStore, CacheError } from '../cache/index.ts'
import { acceptReceipt, BLOB_FEATURES, type ChunkInfo, type VerifiedChunk } from '../blob/index.ts'
import { ArrivedGroups, type Arriving } from './arrived-groups.ts'
import type { DecodeChunk, DecodeOutcome, DecodeTask, StoredSlice } from './decode-task.ts'
import type { DecodePool } from './decode-pool.ts'
import { EngineError } from './errors.ts'
import type { ImageBlob } from './image-blob.ts'
import type { FetchRange } from './plan.ts'
import type { PrefetchPlace } from './schedule.ts'
import { storedSize } from './stored-size.ts'
import type { SharedBuffer, SharedBuffers } from './shared-buffers.ts'

/** What happens to the chunks of a fetch. */
export interface FetchEvents {
  /** Takes verified chunks that were decoded together, neighbours mostly; the bytes may be used until the promise settles. */
  readonly onChunks: (chunks: readonly ChunkToStore[]) => Promise<void>
  /** A chunk came, and is wrong. */
  readonly onBadChunk: (chunk: ChunkInfo, reason: string) => void
}

export interface FetchParts {
  readonly decoders: DecodePool
  readonly buffers: SharedBuffers
  readonly signal: AbortSignal
  /** Where the stored bytes come from, if not from the blob's backend. */
  readonly reader?: Pick<BlobReader, 'read'>
  /** Who waits; default `demand`. */
  readonly purpose?: 'demand' | 'prefetch'
  /** What came of this range before was wrong. */
  readonly afterWrongBytes?: boolean
  /** Told of what comes. */
  readonly ahead?: Pick<PrefetchPlace, 'filled' | 'arrived'>
  /** To be told when somebody comes to wait for one of the chunks. */
  readonly waits?: { onWait: () => void }
}

/** The request for one chunk alone. */
export function rangeOf(info: ChunkInfo): FetchRange {
  const { compressedOffset, uncompressedSize, index } = info
  return { compressedOffset, length: storedSize(info), chunks: [index], plainLength: uncompressedSize }
}

/**
 * Reads a range of a blob; each chunk is decoded and verified as soon as its bytes are there. Settles when all chunks were handed on, also those of a range whose end could not be
 * had: then it throws the backend's error.
 */
export async function fetchRange(
  blob: ImageBlob,
  range: FetchRange,
  parts: FetchParts,
  events: FetchEvents,
): Promise<void> {
  const { decoders, buffers, signal, purpose = 'demand', afterWrongBytes = false } = parts
  const chunks = arrivals(blob, range)
  const stored = buffers.take(range.length)
  const plain = buffers.take(range.plainLength)
  const handed: Array<Promise<void>> = []
  const groups = new ArrivedGroups(
    chunks,
    (chunk) => blob.inFlight.get(chunk)?.isAwaited === true,
    range.slice !== undefined,
  )
  const decode = (group: readonly Arriving[]): void => {
    const tasks = group.map(({ task }) => task)
    const infos = group.map(({ info }) => info)
    const slice = range.slice === undefined ? undefined : blob.zran?.slice(range.slice, infos)
    const done = decoders
      .run(taskOf(blob, stored, plain, tasks, slice))
      .then((outcomes) => handOn(blob, { stored, plain, range }, group, outcomes, events))
    done.catch(() => undefined) // looked at below; until then the range still arrives, and nobody waits for this
    handed.push(done)
  }
  let come = 0
  const onFilled = (filled: number): void => {
    come = filled
    parts.ahead?.filled(filled)
    groups.after(filled).forEach(decode)
  }
  if (parts.waits !== undefined) parts.waits.onWait = () => groups.after(come).forEach(decode)
  let failure: unknown
  try {
    const reader = parts.reader ?? (await blob.reader())
    const how = { signal, onFilled, purpose, afterWrongBytes }
    await reader.read(range.compressedOffset, stored.bytes.subarray(0, range.length), how)
    onFilled(range.length)
    parts.ahead?.arrived(range.length)
  } catch (error) {
    failure = error
    groups.rest().forEach(decode)
  }
  const ends = await Promise.allSettled(handed)
  failure ??= ends.find((end) => end.status === 'rejected')?.reason
  // After a failure somebody may still write into the buffers: they are not used again.
  if (failure !== undefined) throw failure as Error
  buffers.give(stored)
  buffers.give(plain)
}

function arrivals(blob: ImageBlob, range: FetchRange): Arriving[] {
  let plainAt = 0
  return range.chunks.map((chunk) => {
    const info = blob.chunk(chunk)
    const isSliced = range.slice !== undefined
    const task = placed(info, isSliced ? 0 : info.compressedOffset - range.compressedOffset, plainAt)
    plainAt += info.uncompressedSize
    return { info, task, end: isSliced ? range.length : task.storedAt + task.storedSize }
  })
}

function placed(info: ChunkInfo, storedAt: number, plainAt: number): DecodeChunk {
  const { index, uncompressedSize: plainSize, compressed, encrypted, batchOffset, batchSize, digest, crc32c } = info
  const kind = { compressed, encrypted, batchOffset, batchSize }
  return { index, storedAt, storedSize: storedSize(info), plainAt, plainSize, ...kind, digest, crc32c }
}

function taskOf(
  blob: ImageBlob,
  stored: SharedBuffer | undefined,
  plain: SharedBuffer,
  chunks: readonly DecodeChunk[],
  slice?: StoredSlice,
): DecodeTask {
  const { id, compression, digest, cipher } = blob.info
  const isExternal = (blob.info.features & BLOB_FEATURES.EXTERNAL) !== 0
  return {
    blobId: id,
    isExternal,
    compression,
    digest,
    cipher,
    stored,
    plain,
    chunks,
    slice,
  }
}

async function handOn(
  blob: ImageBlob,
  { stored, plain, range }: { readonly stored: SharedBuffer; readonly plain: SharedBuffer; readonly range: FetchRange },
  group: readonly Arriving[],
  outcomes: readonly DecodeOutcome[],
  events: FetchEvents,
): Promise<void> {
  const chunks: ChunkToStore[] = []
  for (const [index, { info, task }] of group.entries()) {
    const outcome = outcomes[index]
    if (!outcome.verified) {
      events.onBadChunk(info, outcome.reason)
      continue
    }
    const found = plain.bytes.subarray(task.plainAt, task.plainAt + task.plainSize)
    const bytes = acceptReceipt(outcome, found, info, blob.info.id)
    const [from, size] = range.slice === undefined ? [task.storedAt, task.storedSize] : [0, range.length]
    const unit = { offset: range.compressedOffset + from, bytes: stored.bytes.subarray(from, from + size) }
    chunks.push({ chunk: info, bytes, stored: unit })
  }
  if (chunks.length > 0) await events.onChunks(chunks)
}

/** Reads a chunk that the cache claims to have, verifies it, and hands it to `use`, during which its bytes may be used. False when the claim is false. */
export async function readClaimed(
  blob: ImageBlob,
  chunk: number,
  parts: FetchParts,
  use: (info: ChunkInfo, bytes: VerifiedChunk) => void,
): Promise<boolean> {
  const { cache } = blob
  if (cache === undefined) throw new EngineError('BACKEND', `blob ${blob.info.id} has no cache`)
  try {
    return await (cache.kind === 'stored' ? decodeClaimed : verifyClaimed)(blob, cache, chunk, parts, use)
  } catch (error) {
    if (error instanceof CacheError && error.code !== 'CLOSED') return false // what cannot be read is not there
    throw error
  }
}

async function verifyClaimed(
  blob: ImageBlob,
  cache: ChunkCache,
  chunk: number,
  { decoders, buffers }: FetchParts,
  use: (info: ChunkInfo, bytes: VerifiedChunk) => void,
): Promise<boolean> {
  const info = blob.chunk(chunk)
  const plain = buffers.take(info.uncompressedSize)
  const bytes = plain.bytes.subarray(0, info.uncompressedSize)
  for (let way = 0; way < cache.ways; way += 1) {
    if (!(await cache.readPlain(info, bytes, way))) return false
    const verified = await verifyPlain(blob, info, plain, decoders)
    if (verified === undefined) continue
    use(info, verified)
    buffers.give(plain)
    return true
  }
  return false
}

/** Verifies plain bytes of a chunk, which lie at the start of the buffer. Undefined when they are not the chunk's. */
export async function verifyPlain(
  blob: ImageBlob,
  info: ChunkInfo,
  plain: SharedBuffer,
  decoders: DecodePool,
): Promise<VerifiedChunk | undefined> {
  const task = { ...placed(info, 0, 0), storedSize: 0, compressed: false }
  const [outcome] = await decoders.run(taskOf(blob, undefined, plain, [task]))
  if (!outcome.verified) return undefined
  return acceptReceipt(outcome, plain.bytes.subarray(0, info.uncompressedSize), info, blob.info.id)
}

/** Stored bytes are decoded as if they came from the backend. */
async function decodeClaimed(
  blob: ImageBlob,
  cache: ChunkCache,
  chunk: number,
  parts: FetchParts,
  use: (info: ChunkInfo, bytes: VerifiedChunk) => void,
): Promise<boolean> {
  const info = blob.chunk(chunk)
  let isRight = false
  const reader: Pick<BlobReader, 'read'> = {
    read: async (offset, into) => {
      if (!(await cache.readUnverified(offset, into)))
        throw new CacheError('IO', `the cache of blob ${blob.info.id} ends before byte ${offset + into.length}`)
    },
  }
  await fetchRange(
    blob,
    blob.zran?.rangeOf(info) ?? rangeOf(info),
    { ...parts, reader },
    {
      onChunks: async (chunks) => {
        isRight = true
        for (const { chunk: found, bytes } of chunks) use(found, bytes)
      },
      onBadChunk: () => undefined,
    },
  )
  return isRight
}
