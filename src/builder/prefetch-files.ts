import { BuilderError } from './errors.ts'

/** Bytes of a file: where they start, and how many. */
export type FileRange = readonly [offset: number, size: number]

/** A file whose data is to come first, or parts of it. */
export interface PrefetchFile {
  /** Absolute, as the list has it. */
  readonly path: string
  /** Undefined: all of it. */
  readonly ranges: readonly FileRange[] | undefined
}

export interface PrefetchFiles {
  readonly files: readonly PrefetchFile[]
  /** What was left out, for the log. */
  readonly warnings: readonly string[]
}

const VERSION = 'v1'
/** More is no list of files. */
const MAX_BYTES = 64 * 1024 * 1024

/**
 * Reads the list of files for a prefetch blob: `{"version":"v1","files":[{"path":"/a","ranges":[[offset,size],…]}]}`, `ranges` may be left out or null. Text without anything in it is a list without
 * files. Relative paths are left out with a warning, as the original does. Throws BuilderError 'BAD_OPTION' in its words.
 */
export function parsePrefetchFiles(text: string): PrefetchFiles {
  if (text.length > MAX_BYTES) throw bad(`it has ${text.length} characters; ${MAX_BYTES} are the limit`)
  if (text.trim() === '') return { files: [], warnings: [] }
  const list = objectOf(parsed(text), 'it is no object')
  if (typeof list['version'] !== 'string') throw bad('missing field `version`')
  if (!Array.isArray(list['files'])) throw bad('missing field `files`')
  if (list['version'] !== VERSION)
    throw new BuilderError('BAD_OPTION', `unsupported prefetch file version: ${list['version']}`)
  const all = list['files'].map((file: unknown, at) => fileOf(file, at))
  const files = all.filter(({ path }) => path.startsWith('/'))
  const warnings = all
    .filter(({ path }) => !path.startsWith('/'))
    .map(({ path }) => `prefetch file path is not absolute, skipping: ${path}`)
  return { files, warnings }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw bad((error as Error).message)
  }
}

function fileOf(file: unknown, at: number): PrefetchFile {
  const { path, ranges } = objectOf(file, `file ${at} is no object`)
  if (typeof path !== 'string') throw bad(`file ${at} is missing field \`path\``)
  if (ranges === undefined || ranges === null) return { path, ranges: undefined }
  if (!Array.isArray(ranges)) throw bad(`the ranges of ${path} are no list`)
  return { path, ranges: ranges.map((range: unknown) => rangeOf(range, path)) }
}

function rangeOf(range: unknown, path: string): FileRange {
  const [offset, size, ...more]: readonly unknown[] = Array.isArray(range) ? range : []
  const isNumber = (value: unknown): value is number =>
    typeof value === 'number' && Number.isInteger(value) && value >= 0
  if (isNumber(offset) && isNumber(size) && more.length === 0) return [offset, size]
  throw bad(`${JSON.stringify(range)?.slice(0, 80)} is no range of ${path}, which is [offset, size] in bytes`)
}

function objectOf(value: unknown, problem: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad(problem)
  return value as Record<string, unknown>
}

function bad(what: string): BuilderError {
  return new BuilderError('BAD_OPTION', `failed to parse prefetch file as JSON: ${what}`)
}

/** True when a chunk has bytes of a range, or ends where it starts, or starts where it ends: the original counts borders too. */
export function touches([offset, size]: FileRange, chunkOffset: number, chunkSize: number): boolean {
  return Math.max(offset, chunkOffset) <= Math.min(offset + size, chunkOffset + chunkSize)
}
