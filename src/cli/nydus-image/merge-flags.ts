import { ExitError, type ProgressMode } from '../output.ts'
import type { CommonFlags } from './arguments.ts'

/** Values of `merge`'s options, as the parser gives them. */
export interface MergeFlags extends CommonFlags {
  readonly bootstrap?: string
  readonly blobDir?: string
  readonly parentBootstrap?: string
  readonly chunkDict?: string
  readonly prefetchPolicy: 'fs' | 'blob' | 'none'
  readonly outputJson?: string
  readonly blobDigests?: string
  readonly originalBlobIds?: string
  readonly blobSizes?: string
  readonly blobTocDigests?: string
  readonly blobTocSizes?: string
  readonly config?: string
  readonly progress: ProgressMode
}

/** What the lists say of one source's own blob. */
export interface SourceFacts {
  readonly blobDigest: string | undefined
  readonly originalId: string | undefined
  readonly blobSize: number | undefined
  readonly tocDigest: Uint8Array | undefined
  readonly tocSize: number | undefined
}

/** Reads the lists, which must have an entry a source. */
export function factsOf(flags: MergeFlags, count: number): SourceFacts[] {
  const digests = list(flags.blobDigests, 'blob digest', count)
  const ids = list(flags.originalBlobIds, 'original blob id', count)
  const sizes = list(flags.blobSizes, 'blob size', count)
  const tocDigests = list(flags.blobTocDigests, 'toc digest', count)
  const tocSizes = list(flags.blobTocSizes, 'toc size', count)
  return Array.from({ length: count }, (_, i) => ({
    blobDigest: digestOf(digests?.[i], '--blob-digests')?.toString('hex'),
    originalId: ids?.[i],
    blobSize: sizeOf(sizes?.[i], '--blob-sizes', Number.MAX_SAFE_INTEGER),
    tocDigest: digestOf(tocDigests?.[i], '--blob-toc-digests'),
    tocSize: sizeOf(tocSizes?.[i], '--blob-toc-sizes', 0xffff_ffff),
  }))
}

function list(text: string | undefined, noun: string, count: number): string[] | undefined {
  if (text === undefined) return undefined
  const items = text.split(',').map((item) => item.trim())
  if (items.length === count) return items
  throw new ExitError(1, `number of ${noun} entries ${items.length} doesn't match number of sources ${count}`)
}

function digestOf(text: string | undefined, option: string): Buffer | undefined {
  if (text === undefined) return undefined
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex')
  const problem = text.length === 64 ? 'Invalid character' : 'Invalid string length'
  throw new ExitError(1, `${problem} in ${option}: ${JSON.stringify(text)} is not 64 hexadecimal digits`)
}

function sizeOf(text: string | undefined, option: string, most: number): number | undefined {
  if (text === undefined) return undefined
  const size = /^\+?[0-9]+$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(size) && size <= most) return size
  throw new ExitError(1, `invalid number in ${option} option: ${JSON.stringify(text)}`)
}
