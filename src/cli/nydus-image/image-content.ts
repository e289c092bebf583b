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
  /** Holds four of the largest chunks: one may be read in several parts. */
  memoryBytes: 64 * 1024 * 1024,
}

/** Contents of an image's files, each chunk verified, with nothing kept on disk; gone after `action`. */
export async function withImageData(
  image: Bootstrap,
  backend: Backend,
  action: (data: ImageData) => Promise<void>,
): Promise<void> {
  const decoders = new DecodePool()
  try {
    const reader = await openImage({ bootstrap: image, backend, cacheDirectory: undefined, decoders, limits: LIMITS })
    try {
      await action(reader)
    } finally {
      await reader.close()
    }
  } finally {
    await decoders.close()
  }
}
