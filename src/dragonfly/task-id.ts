import { createHash } from 'node:crypto'

const SCHEME_END = '://'
const API = '/v2/'
const BLOBS = '/blobs/'
/** Characters behind the colon. */
const DIGEST_LENGTHS: ReadonlyMap<string, number> = new Map([
  ['crc32', 10],
  ['sha256', 64],
  ['sha512', 128],
])
/** What is hashed behind an address: the kind of task, by Dragonfly's name. */
const STANDARD_TASK = 'STANDARD'

/**
 * The name that all clients of a Dragonfly cluster give to what is at an address: the digest of a registry's blob, else a hash of the address, its query written anew.
 * Undefined where Dragonfly has no name: for addresses of a registry's blobs whose digest is none.
 */
export function taskId(address: string): string | undefined {
  const digest = blobDigest(address)
  if (digest !== undefined) return encodedDigest(digest)
  const url = URL.parse(address)
  if (url === null) return undefined
  const query = new URLSearchParams(url.searchParams).toString()
  url.search = query
  let text = url.href
  if (url.pathname === '/') while (text.endsWith('/')) text = text.slice(0, -1)
  return createHash('sha256')
    .update(text + STANDARD_TASK)
    .digest('hex')
}

/**
 * What stands for a digest in `SCHEME://HOST/v2/REPOSITORY/blobs/DIGEST`, perhaps with a query: behind the last `/blobs/` that something follows. Searched for step by step, since an expression would
 * take its time over the addresses that a redirect can bring.
 */
function blobDigest(address: string): string | undefined {
  const scheme = address.indexOf(SCHEME_END)
  const api = scheme < 0 ? -1 : address.indexOf(API, scheme + SCHEME_END.length)
  if (api < 0) return undefined
  for (let at = address.lastIndexOf(BLOBS); at >= api + API.length; at = address.lastIndexOf(BLOBS, at - 1)) {
    const [digest = ''] = address.slice(at + BLOBS.length).split('?', 1)
    if (digest !== '') return digest
  }
  return undefined
}

function encodedDigest(digest: string): string | undefined {
  const colon = digest.indexOf(':')
  const encoded = digest.slice(colon + 1)
  return colon >= 0 && DIGEST_LENGTHS.get(digest.slice(0, colon)) === Buffer.byteLength(encoded) ? encoded : undefined
}
