import { createHash, createHmac } from 'node:crypto'
import type { BucketKeys } from './object-key.ts'

/** Digest of a body without bytes: GET and HEAD have no other. */
const EMPTY_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
const ALGORITHM = 'AWS4-HMAC-SHA256'

/** A request without a body, to be signed. */
export interface SignedRequest {
  readonly method: 'GET' | 'HEAD'
  /** Its path is encoded already, and has no query. */
  readonly url: URL
  /** Names in lower case; all of them are signed, but for what proxies and libraries change. */
  readonly headers: Readonly<Record<string, string>>
}

/** Changed or added on the way. */
const UNSIGNED: ReadonlySet<string> = new Set(['authorization', 'user-agent', 'accept-encoding', 'connection'])

/**
 * AWS Signature Version 4 for S3: the headers to send, `authorization` among them. The host is signed with its port, as it is sent.
 * Source: "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)" of the S3 API reference.
 */
export function signS3(
  { method, url, headers }: SignedRequest,
  { region, keys, now }: { readonly region: string; readonly keys: BucketKeys; readonly now: Date },
): Record<string, string> {
  const time = now.toISOString().replace(/[-:]|\.\d{3}/g, '')
  const scope = `${time.slice(0, 8)}/${region}/s3/aws4_request`
  const sent: Record<string, string> = {
    ...headers,
    'x-amz-content-sha256': EMPTY_SHA256,
    'x-amz-date': time,
    ...(keys.sessionToken === '' ? {} : { 'x-amz-security-token': keys.sessionToken }),
  }
  const all: Record<string, string> = { ...sent, host: url.host }
  const signed = Object.keys(all)
    .filter((name) => !UNSIGNED.has(name.toLowerCase()))
    .map((name) => [name.toLowerCase(), (all[name] ?? '').trim().replace(/ +/g, ' ')] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  const names = signed.map(([name]) => name).join(';')
  const lines = signed.map(([name, value]) => `${name}:${value}\n`).join('')
  const canonical = `${method}\n${url.pathname}\n\n${lines}\n${names}\n${EMPTY_SHA256}`
  const toSign = `${ALGORITHM}\n${time}\n${scope}\n${createHash('sha256').update(canonical).digest('hex')}`
  const key = [time.slice(0, 8), region, 's3', 'aws4_request'].reduce<Buffer>(
    (last, part) => createHmac('sha256', last).update(part).digest(),
    Buffer.from(`AWS4${keys.accessKeySecret}`),
  )
  const signature = createHmac('sha256', key).update(toSign).digest('hex')
  const credential = `Credential=${keys.accessKeyId}/${scope}`
  return { ...sent, authorization: `${ALGORITHM} ${credential}, SignedHeaders=${names}, Signature=${signature}` }
}
