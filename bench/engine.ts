import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { localfsBackend } from '../src/backend/index.ts'
import { ChunkDecoder, ChunkInfo } from '../src/blob/index.ts'
import { buildLayer } from '../src/builder/index.ts'
import { digester } from '../src/codec/index.ts'
import { DecodePool, type EngineLimits, openImage } from '../src/engine/index.ts'
import { type Bootstrap, ChunkSpan, openBootstrap } from '../src/rafs/index.ts'
import { TarWriter } from '../src/tar/index.ts'
import { interleave } from './measure.ts'
import type { Report } from './report.ts'

const ROUNDS = 3
const IMAGE_BYTES = 192 << 20
/** What the kernel asks for at most. */
const READ_BYTES = 1 << 20
/** Reads under way at once, as read-ahead makes them. */
const READS_AT_ONCE = 2
const LIMITS: EngineLimits = {
  readDeadlineMs: 60_000,
  amplifyBytes: 1 << 20,
  demandRequests: 8,
  prefetchRequests: 2,
  prefetchBandwidth: 0,
  memoryBytes: 32 << 20,
}

interface Built {
  readonly bootstrap: Bootstrap
  readonly blobId: string
  readonly blobPath: string
}

interface Used {
  readonly seconds: number
  readonly cpuSeconds: number
}

/** Cold sequential reading of one file through the engine, from a folder, against the least work that it can be: the same chunks decoded and verified one after another, with nothing around. */
export async function benchEngine(report: Report): Promise<void> {
  report.part('Engine: cold sequential read from a folder, blake3')
  const folder = await mkdtemp(join(tmpdir(), 'nydus-bench-engine-'))
  const decoders = new DecodePool()
  try {
    const content = await contentOf(IMAGE_BYTES)
    for (const compression of ['lz4_block', 'zstd'] as const) {
      const built = await build(folder, compression, content)
      const used: Record<string, Used[]> = { engine: [], bound: [] }
      const wall = await interleave(
        {
          engine: async () => keep(used.engine, await measured(() => readAll(folder, built, decoders))),
          bound: async () => keep(used.bound, await measured(() => decodeAll(built, compression))),
        },
        ROUNDS,
      )
      const perGib = (list: readonly Used[]): number =>
        (Math.min(...list.map(({ cpuSeconds }) => cpuSeconds)) * 2 ** 30) / IMAGE_BYTES
      report.figure({
        what: compression,
        unit: 'MB/s',
        ours: IMAGE_BYTES / wall.engine / 1e6,
        bound: { what: 'decode and verify alone, one thread', value: IMAGE_BYTES / wall.bound / 1e6 },
      })
      report.figure({
        what: compression,
        unit: 'CPU s/GiB',
        ours: perGib(used.engine),
        bound: { what: 'decode and verify alone', value: perGib(used.bound) },
      })
    }
  } finally {
    await decoders.close()
    await rm(folder, { recursive: true, force: true })
  }
}

function keep(list: Used[], used: Used): number {
  list.push(used)
  return used.seconds
}

async function measured(work: () => Promise<void>): Promise<Used> {
  const cpu = process.cpuUsage()
  const from = performance.now()
  await work()
  const { user, system } = process.cpuUsage(cpu)
  return { seconds: (performance.now() - from) / 1000, cpuSeconds: (user + system) / 1e6 }
}

/** Real machine code: the Node program itself, repeated with a change in each chunk, so that no chunk is found twice. */
async function contentOf(bytes: number): Promise<Buffer> {
  const program = await readFile(process.execPath)
  const content = Buffer.alloc(bytes)
  for (let at = 0; at < bytes; at += program.length) program.copy(content, at)
  for (let at = 0; at < bytes; at += 1 << 16) content.writeUInt32LE(at, at)
  return content
}

async function build(folder: string, compression: 'lz4_block' | 'zstd', content: Buffer): Promise<Built> {
  const tar: Uint8Array[] = []
  const writer = new TarWriter((bytes) => void tar.push(Uint8Array.from(bytes)))
  await writer.add({ path: Buffer.from('program'), type: 'file', mode: 0o755, size: content.length }, [content])
  await writer.finish()
  const written = join(folder, 'written')
  const file = await open(written, 'w')
  try {
    const built = await buildLayer(
      (async function* () {
        yield* tar
      })(),
      {
        chunkSize: 1 << 20,
        compression,
        digest: 'blake3',
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
        sink: async (bytes) => void (await file.write(bytes)),
      },
    )
    const bootstrap = openBootstrap(built.bootstrap)
    const blobId = bootstrap.blobs[0]?.id ?? ''
    const blobPath = join(folder, blobId)
    await writeFile(blobPath, await readFile(written))
    return { bootstrap, blobId, blobPath }
  } finally {
    await file.close()
    await rm(written, { force: true })
  }
}

/** The way of a miss: fetched, decoded, verified, written to a new cache, copied to the reader. */
async function readAll(folder: string, { bootstrap }: Built, decoders: DecodePool): Promise<void> {
  const cacheDirectory = await mkdtemp(join(folder, 'cache-'))
  const backend = localfsBackend({ dir: folder })
  const reader = await openImage({ bootstrap, backend, cacheDirectory, decoders, limits: LIMITS })
  try {
    const ino = bootstrap.lookup(bootstrap.root, Buffer.from('program')) ?? 0
    const signal = new AbortController().signal
    let next = 0
    const readOn = async (): Promise<void> => {
      const into = new Uint8Array(READ_BYTES)
      const spans: ChunkSpan[] = []
      while (next < IMAGE_BYTES) {
        const offset = next
        next += READ_BYTES
        await reader.read(spans, bootstrap.chunks(ino, offset, READ_BYTES, spans), into, signal)
      }
    }
    await Promise.all(Array.from({ length: READS_AT_ONCE }, readOn))
  } finally {
    await reader.close()
    await backend.close()
    await rm(cacheDirectory, { recursive: true, force: true })
  }
}

async function decodeAll({ bootstrap, blobId, blobPath }: Built, compression: 'lz4_block' | 'zstd'): Promise<void> {
  const layout = bootstrap.layout(0)
  const info = new ChunkInfo()
  const plain = new Uint8Array(1 << 20)
  const digest = new Uint8Array(32)
  const decoder = new ChunkDecoder(compression, undefined)
  const file = await open(blobPath)
  try {
    for (let index = 0; index < layout.chunkCount; index++) {
      layout.chunk(index, info)
      const stored = new Uint8Array(info.compressedSize)
      await file.read(stored, 0, stored.length, info.compressedOffset)
      const into = plain.subarray(0, info.uncompressedSize)
      decoder.decode(stored, info.compressedOffset, info, into)
      digester('blake3').digest(into, digest)
      if (Buffer.compare(digest, info.digest) !== 0) throw new Error(`chunk ${index} of blob ${blobId} is wrong`)
    }
  } finally {
    await file.close()
  }
}
