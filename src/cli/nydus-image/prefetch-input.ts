import { BuilderError, parsePrefetchPatterns, type PrefetchPatterns } from '../../builder/index.ts'

const NO_PATTERNS: PrefetchPatterns = { paths: [], warnings: [] }
/** As much as the parser takes; what goes on beyond is no list of patterns. */
const MAX_BYTES = 64 * 1024 * 1024

/** Reads patterns from stdin to its end, as the original does whenever a policy is given. */
export async function readPatterns(
  policy: 'fs' | 'blob' | 'none',
  signal: AbortSignal,
  source = '',
): Promise<PrefetchPatterns> {
  if (policy === 'none') return NO_PATTERNS
  if (source === '-' || source === '/dev/stdin') {
    throw new BuilderError(
      'BAD_OPTION',
      '--prefetch-policy reads patterns from stdin, so the source cannot come from there; give it as a file or FIFO',
    )
  }
  signal.addEventListener('abort', () => process.stdin.destroy(signal.reason as Error), { once: true })
  const parts: Buffer[] = []
  let size = 0
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    size += part.length
    if (size > MAX_BYTES)
      throw new BuilderError('BAD_OPTION', `stdin has more than ${MAX_BYTES} bytes of prefetch patterns`)
    parts.push(part)
  }
  return parsePrefetchPatterns(Buffer.concat(parts))
}
