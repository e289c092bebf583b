import { parsePrefetchPatterns, type PrefetchPatterns } from '../../builder/index.ts'

const NO_PATTERNS: PrefetchPatterns = { paths: [], warnings: [] }

/** Reads patterns from stdin to its end, as the original does whenever a policy is given. */
export async function readPatterns(policy: 'fs' | 'blob' | 'none'): Promise<PrefetchPatterns> {
  if (policy === 'none') return NO_PATTERNS
  const parts: Buffer[] = []
  for await (const part of process.stdin) parts.push(part as Buffer)
  return parsePrefetchPatterns(Buffer.concat(parts))
}
