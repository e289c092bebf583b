/** A thread that unpacks one layer: takes its compressed bytes as they come, gives sizes and the tar's digest when all are there. */
import { createHash } from 'node:crypto'
import { pipeline } from 'node:stream/promises'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { parentPort, workerData } from 'node:worker_threads'
import { type Unpacked, unpackLayer } from '../src/integrations/graph-driver/unpack-layer.ts'

export interface UnpackWork {
  readonly directory: string
}
/** To the worker: bytes (given away), then `null` once they were verified. */
export type LayerBytes = Uint8Array<ArrayBuffer> | null
/** From the worker. */
export type UnpackMessage =
  | { readonly taken: number }
  | { readonly done: Unpacked & { readonly diffId: string } }
  | { readonly failed: string }

const PIECE_BYTES = 256 * 1024

const waiting: LayerBytes[] = []
let wake: (() => void) | undefined

parentPort?.on('message', (bytes: LayerBytes) => {
  waiting.push(bytes)
  wake?.()
})

async function next(): Promise<LayerBytes> {
  while (waiting.length === 0) await new Promise<void>((resolve) => (wake = resolve))
  return waiting.shift() ?? null
}

async function* arriving(first: LayerBytes): AsyncGenerator<Uint8Array> {
  for (let bytes = first; bytes !== null; bytes = await next()) {
    const { length } = bytes
    yield bytes
    parentPort?.postMessage({ taken: length } satisfies UnpackMessage)
  }
}

async function run({ directory }: UnpackWork): Promise<void> {
  const hash = createHash('sha256')
  const unpack = async (tar: AsyncIterable<Uint8Array>): Promise<Unpacked> => {
    const hashed = hashing(tar, hash)
    const unpacked = await unpackLayer(hashed, directory)
    // What stands behind the end of the archive belongs to the digest.
    for await (const _rest of hashed);
    return unpacked
  }
  const first = await next()
  const options = { chunkSize: PIECE_BYTES, highWaterMark: 4 * PIECE_BYTES }
  const [a, b] = first ?? []
  const source = arriving(first)
  let unpacked: Unpacked | undefined
  const keep = async (tar: AsyncIterable<Uint8Array>): Promise<void> => {
    unpacked = await unpack(tar)
  }
  if (a === 0x1f && b === 0x8b) await pipeline(source, createGunzip(options), keep)
  else if (a === 0x28 && b === 0xb5) await pipeline(source, createZstdDecompress(options), keep)
  else await keep(source)
  if (unpacked === undefined) throw new Error('the layer ended before it was unpacked')
  const diffId = `sha256:${hash.digest('hex')}`
  parentPort?.postMessage({ done: { ...unpacked, diffId } } satisfies UnpackMessage)
}

async function* hashing(
  bytes: AsyncIterable<Uint8Array>,
  hash: ReturnType<typeof createHash>,
): AsyncGenerator<Uint8Array> {
  for await (const piece of bytes) {
    hash.update(piece)
    yield piece
  }
}

run(workerData as UnpackWork)
  .catch((error: unknown) => {
    const failed = error instanceof Error ? error.message : String(error)
    parentPort?.postMessage({ failed } satisfies UnpackMessage)
  })
  .finally(() => parentPort?.close())
