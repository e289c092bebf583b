import { RegistryError } from './errors.ts'
import type { HttpHeaders } from './http.ts'

/** What a 206 says that it carries (RFC 9110 §14.4). `total` is undefined for `*`. `end` is inclusive. */
export interface ContentRange {
  readonly start: number
  readonly end: number
  readonly total: number | undefined
}

const PATTERN = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/i

/** Undefined when there is none, or one that contradicts itself. */
export function parseContentRange(header: string | string[] | undefined): ContentRange | undefined {
  const match = typeof header === 'string' ? PATTERN.exec(header.trim()) : null
  if (match === null) return undefined
  const start = Number(match[1])
  const end = Number(match[2])
  const total = match[3] === '*' ? undefined : Number(match[3])
  if (![start, end, total ?? 0].every(Number.isSafeInteger) || end < start || (total !== undefined && end >= total))
    return undefined
  return { start, end, total }
}

/** Content-Length, or undefined when absent. Nonsense is 'BAD_RESPONSE'. */
export function contentLength(headers: HttpHeaders, what: string): number | undefined {
  const header = headers['content-length']
  if (header === undefined) return undefined
  const length = typeof header === 'string' && /^\d{1,16}$/.test(header) ? Number(header) : Number.NaN
  if (!Number.isSafeInteger(length))
    throw new RegistryError('BAD_RESPONSE', `cannot ${what}: Content-Length is ${JSON.stringify(header)}`)
  return length
}

/** Blobs are bytes as stored: a server that compresses on the way would give others. */
export function refuseEncoding(headers: HttpHeaders, what: string): void {
  const encoding = headers['content-encoding']
  if (encoding !== undefined && encoding !== 'identity') {
    throw new RegistryError(
      'BAD_RESPONSE',
      `cannot ${what}: the answer is encoded (${JSON.stringify(encoding)}), which nobody asked for`,
    )
  }
}
