import { BuilderError } from '../errors.ts'
import { detectCompression, readHead, resume } from '../../codec/index.ts'
import { GzipLayer } from './gzip-layer.ts'
import { PlainLayer } from './plain-layer.ts'
import type { ReferredLayer } from './referred-layer.ts'

/** Opens a layer to be referred to: gzip or plain, told by its first bytes. Pieces are valid until the next one is asked for. Throws BuilderError 'UNSUPPORTED' for another compression. */
export async function openReferredLayer(pieces: AsyncIterable<Uint8Array>, chunkSize: number): Promise<ReferredLayer> {
  const iterator = pieces[Symbol.asyncIterator]()
  try {
    const head = await readHead(iterator)
    const compression = detectCompression(head)
    if (compression === 'zstd')
      throw new BuilderError(
        'UNSUPPORTED',
        'the layer is compressed with zstd: only gzip layers and plain ones can be referred to; build it with --type targz-rafs',
      )
    const whole = resume(head, iterator)
    return compression === 'gzip' ? GzipLayer.open(whole, chunkSize) : new PlainLayer(whole)
  } catch (error) {
    await iterator.return?.()
    throw error
  }
}
