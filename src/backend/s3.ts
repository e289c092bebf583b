import type { Backend } from './backend.ts'
import { BackendError } from './errors.ts'
import { type BlobServer, httpBlobs, type NetworkOptions } from './http-blobs.ts'
import { type BucketOptions, checkBucket, keyPath } from './object-key.ts'
import { signS3 } from './s3-signature.ts'
import { storeRefusal } from './store-refusal.ts'

/** A bucket of a server that speaks S3. A blank endpoint is Amazon's. */
export interface S3Options extends BucketOptions, NetworkOptions {
  readonly region: string
}

/** Blobs in a bucket of S3, by ranges, addressed by path. Nothing is connected before the first read. Throws 'BAD_OPTION'. */
export function s3Backend(options: S3Options): Backend {
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(options.region))
    throw new BackendError(
      'BAD_OPTION',
      'cannot use backend s3: "region" is missing or none; us-east-1 is the usual one',
    )
  const bucket = { ...options, endpoint: options.endpoint === '' ? amazonOf(options.region) : options.endpoint }
  checkBucket('s3', bucket)
  return httpBlobs(serverOf(bucket), options)
}

/** Amazon's own host of a region: it redirects nobody. */
function amazonOf(region: string): string {
  if (region === 'us-east-1') return 's3.amazonaws.com'
  return `s3.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`
}

function serverOf(options: S3Options): BlobServer {
  const { scheme, endpoint, bucket, prefix, region, accessKeyId } = options
  return {
    name: 's3',
    where: `bucket ${bucket} at ${endpoint}`,
    urlOf: (blobId) => new URL(`${scheme}://${endpoint}/${keyPath(`${bucket}/${prefix}${blobId}`)}`),
    authorise: (method, url, headers) =>
      accessKeyId === ''
        ? { ...headers }
        : signS3({ method, url, headers }, { region, keys: options, now: new Date() }),
    explain: storeRefusal,
  }
}
