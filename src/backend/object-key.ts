import { BackendError } from './errors.ts'
import { isHost } from './host.ts'

const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/

/** Who keeps the objects, and the login. */
export interface BucketOptions {
  /** `https` or `http`. */
  readonly scheme: string
  /** Host, and perhaps a port. */
  readonly endpoint: string
  readonly bucket: string
  /** Put before blob ids as it is. */
  readonly prefix: string
  /** Key and secret both blank: requests are not signed. */
  readonly accessKeyId: string
  readonly accessKeySecret: string
  /** Of temporary keys; blank = none. */
  readonly sessionToken: string
}

/** A login for a bucket. */
export type BucketKeys = Pick<BucketOptions, 'accessKeyId' | 'accessKeySecret' | 'sessionToken'>

/** Throws 'BAD_OPTION' for what makes no address. `kind` is `s3` or `oss`. */
export function checkBucket(kind: string, options: BucketOptions): void {
  const { scheme, endpoint, bucket, prefix, accessKeyId, accessKeySecret, sessionToken } = options
  const bad = (key: string, why: string): BackendError =>
    new BackendError('BAD_OPTION', `cannot use backend ${kind}: "${key}" ${why}`)
  if (scheme !== 'http' && scheme !== 'https') throw bad('scheme', 'must be http or https')
  if (!isHost(endpoint))
    throw bad('endpoint', 'must be a host and perhaps a port, without scheme and path: storage.example:9000')
  if (!BUCKET.test(bucket))
    throw bad('bucket_name', `is ${JSON.stringify(bucket.slice(0, 100))}, which names no bucket`)
  // URLs have no names "." and "..": whoever parses them goes up and down the tree instead.
  if (
    !prefix.isWellFormed() ||
    /\p{Cc}/u.test(prefix) ||
    prefix.split('/').some((part) => part === '.' || part === '..')
  )
    throw bad('object_prefix', 'has a part that no URL can carry')
  if (/[^\x21-\x7e]/.test(accessKeyId + accessKeySecret + sessionToken))
    throw bad('access_key_id', 'or the secret, or the token, has characters that no key has')
  if ((accessKeyId === '') !== (accessKeySecret === ''))
    throw bad('access_key_id', 'and "access_key_secret" belong together: give both, or none for a public bucket')
}

/** The path of an object: its key with all but unreserved characters and slashes as %XX (RFC 3986), as signatures want it. */
export function keyPath(key: string): string {
  return key
    .split('/')
    .map((part) =>
      encodeURIComponent(part).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`),
    )
    .join('/')
}
