import type { Backend } from './backend.ts'
import { isAddress } from './host.ts'
import { type BlobServer, httpBlobs, type NetworkOptions } from './http-blobs.ts'
import { type BucketOptions, checkBucket, keyPath } from './object-key.ts'
import { signOss } from './oss-signature.ts'
import { storeRefusal } from './store-refusal.ts'

/** A bucket of Alibaba's OSS. */
export interface OssOptions extends BucketOptions, NetworkOptions {}

/** Blobs in a bucket of OSS, by ranges, addressed by the bucket's host name; by path where the endpoint is an IP address. Nothing is connected before the first read. Throws 'BAD_OPTION'. */
export function ossBackend(options: OssOptions): Backend {
  checkBucket('oss', options)
  return httpBlobs(serverOf(options), options)
}

function serverOf(options: OssOptions): BlobServer {
  const { scheme, endpoint, bucket, prefix, accessKeyId, sessionToken } = options
  const base = isAddress(endpoint) ? `${scheme}://${endpoint}/${bucket}` : `${scheme}://${bucket}.${endpoint}`
  const path = new URL(base).pathname.replace(/\/$/, '')
  return {
    name: 'oss',
    where: `bucket ${bucket} at ${endpoint}`,
    urlOf: (blobId) => new URL(`${base}/${keyPath(`${prefix}${blobId}`)}`),
    authorise: (method, url, headers) => {
      if (accessKeyId === '') return { ...headers }
      const sent: Record<string, string> = { ...headers, date: new Date().toUTCString() }
      if (sessionToken !== '') sent['x-oss-security-token'] = sessionToken
      const key = decodeURIComponent(url.pathname.slice(path.length))
      return { ...sent, authorization: signOss({ method, resource: `/${bucket}${key}`, headers: sent }, options) }
    },
    explain: storeRefusal,
  }
}
