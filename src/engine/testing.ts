/** For tests of this room: images built in memory, and a backend that counts, waits and fails as it is told. */
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { type Backend, BackendError, type BlobReader, type ReadOptions } from '../backend/index.ts'
import type { CompressionName, DigestName } from '../codec/index.ts'
import { type Bootstrap, ChunkSpan, openBootstrap } from '../rafs/index.ts'
import { TarWriter } from '../tar/index.ts'
import type { EngineLimits, ImageReader } from './index.ts'

export const LIMITS: EngineLimits = {
  readDeadlineMs: 60_000,
  amplifyBytes: 0,
  demandRequests: 8,
  prefetchRequests: 2,
  prefetchBandwidth: 0,
  memoryBytes: 16 << 20,
}

/** Bytes that repeat only a little and are told by their seed. */
export function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  let state = (seed * 2654435761) >>> 0 || 1
  for (let at = 0; at < length; at++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[at] = (state >>> 0) % 61
  }
  return bytes
}

export interface TestImage {
  readonly bootstrap: Bootstrap
  readonly bootstrapBytes: Uint8Array
  readonly blob: Buffer
  readonly files: Readonly<Record<string, Buffer>>
}

type BuildLayer = (
  archive: AsyncIterable<Uint8Array>,
  options: {
    readonly chunkSize: number
    readonly compression: Exclude<CompressionName, 'gzip'>
    readonly digest: DigestName
    readonly inlineBootstrap: boolean
    readonly blobToc: boolean
    readonly batchSize: number
    readonly cipher: undefined
    readonly blobOffset: number
    readonly version: 5 | 6
    readonly alignedChunks: boolean
    readonly blobId: undefined
    readonly keepOwners: boolean
    readonly whiteoutSpec: 'none'
    readonly dictionary: undefined
    readonly parent: undefined
    readonly prefetch: { readonly policy: 'none'; readonly paths: readonly string[] }
    readonly signal: AbortSignal
    readonly sink: (bytes: Uint8Array) => Promise<void>
  },
) => Promise<{ readonly bootstrap: Uint8Array }>

/** Builds a real layer of these files, in this order. The builder is the test's to bring: it is no floor below this room. */
export async function buildTestImage(
  buildLayer: BuildLayer,
  files: Readonly<Record<string, Buffer>>,
  options: { chunkSize?: number; compression?: Exclude<CompressionName, 'gzip'>; digest?: DigestName } = {},
): Promise<TestImage> {
  const tar: Buffer[] = []
  const writer = new TarWriter((bytes) => void tar.push(Buffer.from(bytes)))
  for (const [name, content] of Object.entries(files))
    await writer.add({ path: Buffer.from(name), type: 'file', mode: 0o644, size: content.length }, [content])
  await writer.finish()
  const blob: Buffer[] = []
  const built = await buildLayer(
    (async function* () {
      yield* tar
    })(),
    {
      chunkSize: options.chunkSize ?? 0x1_0000,
      compression: options.compression ?? 'zstd',
      digest: options.digest ?? 'blake3',
      inlineBootstrap: false,
      blobToc: false,
      batchSize: 0,
      cipher: undefined,
      blobOffset: 0,
      version: 6,
      alignedChunks: false,
      blobId: undefined,
      keepOwners: true,
      whiteoutSpec: 'none',
      dictionary: undefined,
      parent: undefined,
      prefetch: { policy: 'none', paths: [] },
      signal: new AbortController().signal,
      sink: async (bytes) => void blob.push(Buffer.from(bytes)),
    },
  )
  return {
    bootstrap: openBootstrap(built.bootstrap),
    bootstrapBytes: built.bootstrap,
    blob: Buffer.concat(blob),
    files,
  }
}

/** One request that reached the backend. */
export interface Asked {
  readonly from: number
  readonly length: number
}

/** A backend over bytes in memory that does as it is told. */
export class ToldBackend implements Backend {
  readonly name = 'told'
  readonly asked: Asked[] = []
  /** Of each request: whether it was made because what came before was wrong. */
  readonly afterWrongBytes: boolean[] = []
  /** Before a request is answered; may wait, or throw. `attempt` counts from 0. */
  before: (asked: Asked, attempt: number, signal: AbortSignal) => Promise<void> = async () => {}
  /** Changes what is sent. */
  damage: (into: Uint8Array, attempt: number) => void = () => {}
  readonly #bytes: Buffer

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get bytesSent(): number {
    return this.asked.reduce((sum, { length }) => sum + length, 0)
  }

  async open(): Promise<BlobReader> {
    return {
      size: async () => this.#bytes.length,
      read: (from, into, options) => this.#read(from, into, options),
      close: async () => {},
    }
  }

  async close(): Promise<void> {}

  async #read(from: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    const { signal, onFilled, afterWrongBytes = false } = options
    const attempt = this.asked.length
    this.afterWrongBytes.push(afterWrongBytes)
    const asked = { from, length: into.length }
    this.asked.push(asked)
    await this.before(asked, attempt, signal)
    if (from + into.length > this.#bytes.length) throw new BackendError('TRUNCATED', 'beyond the end of the blob')
    into.set(this.#bytes.subarray(from, from + into.length))
    this.damage(into, attempt)
    onFilled?.(into.length)
  }
}

/** Reads a part of a file through the engine. */
export async function readFile(
  image: Bootstrap,
  reader: ImageReader,
  name: string,
  offset = 0,
  length = Number.MAX_SAFE_INTEGER,
  signal: AbortSignal = new AbortController().signal,
): Promise<Buffer> {
  let ino = image.root
  for (const part of name.split('/')) ino = image.lookup(ino, Buffer.from(part)) ?? -1
  const spans: ChunkSpan[] = []
  const count = image.chunks(ino, offset, length, spans)
  let bytes = 0
  for (let index = 0; index < count; index++) bytes += spans[index].length
  const into = Buffer.alloc(bytes)
  await reader.read(spans, count, into, signal)
  return into
}

/** Puts the layers that reference images leave as they are into a folder: the fixtures tell how each is made from a source. */
export function addDerivedBlobs(fixtures: string, folder: string): void {
  const { derived_blobs: derived } = JSON.parse(readFileSync(join(fixtures, 'manifest.json'), 'utf8')) as {
    derived_blobs: Record<string, { readonly gunzip?: string; readonly copy?: string }>
  }
  for (const [id, { gunzip, copy }] of Object.entries(derived)) {
    if (copy !== undefined) symlinkSync(join(fixtures, copy), join(folder, id))
    if (gunzip !== undefined) writeFileSync(join(folder, id), gunzipSync(readFileSync(join(fixtures, gunzip))))
  }
}
