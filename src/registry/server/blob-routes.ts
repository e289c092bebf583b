import type { Digest } from '../digest.ts'
import { parseDigest } from '../digest.ts'
import type { Exchange } from './exchange.ts'
import { SpecError } from './spec-error.ts'
import type { Store } from './store.ts'

/** `{name}/blobs/{digest}`. */
export async function serveBlob(exchange: Exchange, store: Store, name: string, ref: string): Promise<void> {
  const digest = requestDigest(ref)
  if (exchange.method === 'DELETE') {
    if (!(await store.deleteBlob(name, digest))) throw unknownBlob(name, digest)
    return exchange.empty(202)
  }
  if (exchange.method !== 'GET' && exchange.method !== 'HEAD') throw notAllowed('GET, HEAD, DELETE')
  const blob = await store.blob(name, digest)
  if (blob === undefined) throw unknownBlob(name, digest)
  const headers = {
    'content-type': 'application/octet-stream',
    'docker-content-digest': digest,
    'accept-ranges': 'bytes',
    etag: `"${digest}"`,
    'cache-control': 'max-age=31536000',
  }
  const range = exchange.fault?.kind === 'ignore-range' ? undefined : parseRange(exchange.header('range'), blob.size)
  if (range === undefined) {
    return exchange.send(
      200,
      { ...headers, 'content-length': String(blob.size) },
      { path: blob.path, start: 0, length: blob.size },
    )
  }
  const shift = exchange.fault?.kind === 'wrong-range' ? exchange.fault.shiftBytes : 0
  const start = Math.max(0, range.start + shift)
  const end = Math.min(blob.size - 1, range.end + shift)
  const length = end - start + 1
  const answer = { ...headers, 'content-length': String(length), 'content-range': `bytes ${start}-${end}/${blob.size}` }
  return exchange.send(206, answer, { path: blob.path, start, length })
}

/** A digest from path or query; DIGEST_INVALID when it is none. */
export function requestDigest(text: string): Digest {
  try {
    return parseDigest(text)
  } catch (error) {
    throw new SpecError('DIGEST_INVALID', (error as Error).message, { cause: error })
  }
}

export function notAllowed(allow: string): SpecError {
  return new SpecError('UNSUPPORTED', `the method is not one of ${allow}`, { headers: { allow } })
}

/** One range of bytes (RFC 9110 §14.2); undefined when the header is to be ignored, which many ranges are. 416 when it lies outside. */
export function parseRange(header: string | undefined, size: number): { start: number; end: number } | undefined {
  const match = /^bytes=\s*(\d{0,16})-(\d{0,16})\s*$/.exec(header ?? '')
  if (match === null) return undefined
  const [, first = '', last = ''] = match
  if (first === '' && last === '') return undefined
  if (first !== '' && last !== '' && Number(last) < Number(first)) return undefined
  const start = first === '' ? Math.max(0, size - Number(last)) : Number(first)
  const end = first === '' || last === '' ? size - 1 : Math.min(Number(last), size - 1)
  if (start >= size || (first === '' && Number(last) === 0)) {
    throw new SpecError('SIZE_INVALID', `the range is outside of the blob's ${size} bytes`, {
      status: 416,
      headers: { 'content-range': `bytes */${size}` },
    })
  }
  return { start, end }
}

function unknownBlob(name: string, digest: Digest): SpecError {
  return new SpecError('BLOB_UNKNOWN', `${name} has no blob ${digest}`)
}
