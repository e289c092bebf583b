import { createHmac } from 'node:crypto'
import type { BucketKeys } from './object-key.ts'

/** A request as OSS signs it. */
export interface OssRequest {
  readonly method: string
  /** `/bucket/key`, not encoded. */
  readonly resource: string
  /** Names in lower case; `date`, `content-md5`, `content-type` and all of `x-oss-` are signed. */
  readonly headers: Readonly<Record<string, string>>
}

/**
 * OSS Signature Version 1: the value of `Authorization`, HMAC-SHA1 of the request's lines.
 * Source: "Include signatures in the Authorization header (V1)" of the OSS API reference.
 */
export function signOss({ method, resource, headers }: OssRequest, keys: BucketKeys): string {
  const own = Object.entries(headers)
    .filter(([name]) => name.startsWith('x-oss-'))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}:${value.trim()}\n`)
    .join('')
  const { 'content-md5': md5 = '', 'content-type': type = '', date = '' } = headers
  const text = `${method}\n${md5}\n${type}\n${date}\n${own}${resource}`
  return `OSS ${keys.accessKeyId}:${createHmac('sha1', keys.accessKeySecret).update(text).digest('base64')}`
}
