import { BuilderError } from './errors.ts'

/** Patterns of files to have first, as paths in the image. */
export interface PrefetchPatterns {
  /** Absolute, without `/` at the end (but for the root), in the order in which they were given; each path once. */
  readonly paths: readonly string[]
  /** What was left out, for the log. */
  readonly warnings: readonly string[]
}

/** What to do with the patterns: a table of them in the bootstrap, their data first in the blob, or nothing. */
export type PrefetchPolicy = 'fs' | 'blob' | 'none'

/** More is no list of files. */
const MAX_BYTES = 64 * 1024 * 1024

/**
 * Reads patterns, one a line. Relative ones and those at or below an earlier one are left out with a warning, as the original does. Bytes that are
 * not UTF-8 are kept: paths are compared byte by byte (here as latin1 text).
 */
export function parsePrefetchPatterns(text: Uint8Array): PrefetchPatterns {
  if (text.length > MAX_BYTES)
    throw new BuilderError(
      'BAD_OPTION',
      `the list of prefetch patterns has ${text.length} bytes; ${MAX_BYTES} are the limit`,
    )
  const paths = new Set<string>()
  const warnings: string[] = []
  const lines = Buffer.from(text).toString('latin1').split('\n')
  if (lines.at(-1) === '') lines.pop()
  for (const line of lines) {
    const shown = Buffer.from(line, 'latin1').toString('utf8')
    const trimmed = line.replace(/^[\t\n\v\f\r ]+|[\t\n\v\f\r ]+$/g, '')
    if (!trimmed.startsWith('/')) {
      warnings.push(`Illegal file path ${shown} specified, should be absolute path`)
      continue
    }
    const path = `/${trimmed
      .split('/')
      .filter((name) => name !== '' && name !== '.')
      .join('/')}`
    if (coveredBy(path, paths))
      warnings.push(`prefetch pattern ${shown} is covered by previous pattern and thus omitted`)
    else paths.add(path)
  }
  return { paths: [...paths], warnings }
}

function coveredBy(path: string, earlier: ReadonlySet<string>): boolean {
  for (let at = path; ; at = at.slice(0, Math.max(1, at.lastIndexOf('/')))) {
    if (earlier.has(at)) return true
    if (at === '/') return false
  }
}

/** The number of the pattern that a path falls under: the deepest that is the path or one of its parents. */
export function matchPattern(path: string, numbers: ReadonlyMap<string, number>): number | undefined {
  for (let at = path; ; at = at.slice(0, Math.max(1, at.lastIndexOf('/')))) {
    const number = numbers.get(at)
    if (number !== undefined || at === '/') return number
  }
}
