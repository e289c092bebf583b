import type { Backend } from '../../backend/index.ts'
import type { ImageData } from '../../builder/index.ts'
import { DecodePool, openImage } from '../../engine/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'

/** Reading everything needs no guesses about what comes next; what lies between two wanted chunks is wanted soon. */
const LIMITS = {
  readDeadlineMs: 120_000,
  amplifyBytes: 128 * 1024,
  demandRequests: 4,
  prefetchRequests: 1,
  prefetchBandwidth: 0,
}

/** Keeps what came with other chunks until its own file is written. */
const LEAST_MEMORY_BYTES = 16 * 1024 * 1024
/** A large chunk may be read in several parts. */
const LEAST_CHUNKS = 5

/** Contents of an image's files, each chunk verified, with nothing kept on disk; gone after `action`. */
export async function withImageData(
  image: Bootstrap,
  backend: Backend,
  action: (data: ImageData) => Promise<void>,
): Promise<void> {
  const decoders = new DecodePool()
  const memoryBytes = Math.max(LEAST_MEMORY_BYTES, LEAST_CHUNKS * image.chunkSize)
  const limits = { ...LIMITS, memoryBytes }
  try {
    const reader = await openImage({ bootstrap: image, backend, cacheDirectory: undefined, decoders, limits })
    try {
      await action(reader)
    } finally {
      await reader.close()
    }
  } finally {
    await decoders.close()
  }
}
