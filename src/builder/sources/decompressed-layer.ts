import { CodecError, decompressed } from '../../codec/index.ts'
import { BuilderError } from '../errors.ts'

/** `decompressed` of the codec room for a layer: what is damaged is BuilderError 'BAD_SOURCE'. */
export async function* decompressedLayer(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* decompressed(stream)
  } catch (cause) {
    if (!(cause instanceof CodecError)) throw cause
    throw new BuilderError('BAD_SOURCE', `cannot decompress the layer: ${cause.message}`, { cause })
  }
}
