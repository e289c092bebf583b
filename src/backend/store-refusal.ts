import type { BackendErrorCode } from './errors.ts'

const KEYS = 'check access_key_id and access_key_secret'
/** What object stores say in their error bodies, and what helps. Codes of S3 and OSS, which share most. */
const MEANINGS: Readonly<Record<string, readonly [BackendErrorCode, string]>> = {
  SignatureDoesNotMatch: ['UNAUTHORIZED', KEYS],
  InvalidAccessKeyId: ['UNAUTHORIZED', KEYS],
  InvalidClientTokenId: ['UNAUTHORIZED', KEYS],
  ExpiredToken: ['UNAUTHORIZED', 'the temporary keys are over: get new ones'],
  InvalidToken: ['UNAUTHORIZED', 'session_token does not belong to the keys'],
  SecurityTokenExpired: ['UNAUTHORIZED', 'the temporary keys are over: get new ones'],
  InvalidSecurityToken: ['UNAUTHORIZED', 'session_token does not belong to the keys'],
  RequestTimeTooSkewed: ['UNAUTHORIZED', 'set the clock of this machine'],
  AccessDenied: ['FORBIDDEN', 'the keys may not read this bucket'],
  NoSuchKey: ['NOT_FOUND', 'there is no such object; check object_prefix'],
  NoSuchBucket: ['NOT_FOUND', 'check bucket_name and endpoint'],
  AuthorizationHeaderMalformed: ['BAD_OPTION', 'check region'],
  PermanentRedirect: ['BAD_OPTION', 'the bucket is elsewhere: check endpoint and region'],
  TemporaryRedirect: ['BAD_OPTION', 'the bucket is elsewhere: check endpoint and region'],
  SlowDown: ['RATE_LIMITED', 'it asks for fewer requests'],
  InvalidRange: ['TRUNCATED', 'the object is shorter'],
}
const CODE = /<Code>([A-Za-z.]{1,80})<\/Code>/

/** Reads the XML body of a refusal. Nothing of it is shown but its code. */
export function storeRefusal(
  _status: number,
  body: string,
): { readonly code?: BackendErrorCode; readonly detail: string } | undefined {
  const said = CODE.exec(body)?.[1]
  if (said === undefined) return undefined
  const known = Object.hasOwn(MEANINGS, said) ? MEANINGS[said] : undefined
  return known === undefined ? { detail: said } : { code: known[0], detail: `${said}: ${known[1]}` }
}
