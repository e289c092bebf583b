import { MAX_BLOB_BYTES } from '../blob/index.ts'
import { BuilderError } from './errors.ts'
import type { LayerOptions } from './layer-options.ts'

/** Options that contradict each other, before anything is read. Throws BuilderError 'BAD_OPTION'. */
export function checkLayerOptions(options: LayerOptions, isReference: boolean): void {
  if (options.version === 5) refuseV6Only(options)
  if (options.blobOffset > MAX_BLOB_BYTES)
    throw new BuilderError('BAD_OPTION', `the blob offset ${options.blobOffset} is beyond what a blob may have`)
  if (isReference) checkReference(options)
}

function refuseV6Only({ blobToc, batchSize, cipher }: LayerOptions): void {
  const refuse = (what: string): BuilderError =>
    new BuilderError('BAD_OPTION', `RAFS v5 has no place for ${what}; leave it out, or build v6`)
  if (blobToc) throw refuse('a table of contents')
  if (batchSize > 0) throw refuse('batches of chunks')
  if (cipher !== undefined) throw refuse('the key of an encrypted blob')
}

function checkReference({ version, digest, blobId, blobOffset, batchSize, cipher }: LayerOptions): void {
  const isPlain = blobId === undefined && blobOffset === 0 && batchSize === 0 && cipher === undefined
  if (version === 6 && digest === 'sha256' && isPlain) return
  throw new BuilderError(
    'BAD_OPTION',
    'references to gzip layers are built as RAFS v6 with sha256, without batches, encryption, an offset or another id',
  )
}
