import { RegistryError } from './errors.ts'
import type { HttpRequest } from './http.ts'

const TIMEOUTS: ReadonlySet<string> = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'ETIMEDOUT',
])
const NOT_TLS: ReadonlySet<string> = new Set([
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_SSL_HTTP_REQUEST',
  'EPROTO',
  'ECONNREFUSED',
])
const UNTRUSTED = /^(?:CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|ERR_TLS_CERT|INVALID_CA|HOSTNAME_MISMATCH)/

/** True for errors which say that no TLS is spoken at the other end (or nobody is there), so that plain HTTP may be tried. */
export function speaksNoTls(error: unknown): boolean {
  const cause = error instanceof RegistryError ? error.cause : error
  return NOT_TLS.has(errorCode(cause))
}

export function abortError(request: HttpRequest): RegistryError {
  return new RegistryError('ABORTED', `gave up asking ${request.url.host}: the caller no longer waits`, {
    cause: request.signal.reason,
  })
}

/** Maps what undici, TLS and the socket throw. The URL's query is left out: it may hold a signature. */
export function wireError(error: unknown, request: HttpRequest): RegistryError {
  if (error instanceof RegistryError) return error
  if (request.signal.aborted) return abortError(request)
  const code = errorCode(error)
  const at = `${request.url.origin}${request.url.pathname}`
  const cause = { cause: error }
  if (TIMEOUTS.has(code))
    return new RegistryError(
      'TIMEOUT',
      `no answer from ${at} in time (${code}); is the server or the network overloaded?`,
      cause,
    )
  if (UNTRUSTED.test(code)) {
    return new RegistryError(
      'UNTRUSTED',
      `cannot trust the certificate of ${request.url.host} (${code}); give its CA, or skip the verification`,
      cause,
    )
  }
  if (code === 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH')
    return new RegistryError('TRUNCATED', `the answer of ${at} ended early or ran over its Content-Length`, cause)
  if (
    (error instanceof Error && error.name === 'HTTPParserError') ||
    code.startsWith('HPE_') ||
    code === 'UND_ERR_HEADERS_OVERFLOW'
  )
    return new RegistryError('BAD_RESPONSE', `the answer of ${at} is not HTTP (${code || describe(error)})`, cause)
  if (code === 'UND_ERR_DESTROYED' || code === 'UND_ERR_CLOSED')
    return new RegistryError('CLOSED', `cannot ask ${at}: the client was closed`, cause)
  if (code === 'UND_ERR_INVALID_ARG')
    return error instanceof Error && error.message.includes('(407)') // undici's word for a proxy's refusal of a request in the absolute form
      ? new RegistryError('FORBIDDEN', `the proxy on the way to ${at} wants a login: write it into its URL`, cause)
      : new RegistryError(
          'BAD_CONFIG',
          `cannot ask ${at}: a header of the request holds what no header can; correct the configured login, token or headers`,
          cause,
        )
  const next = code.startsWith('ERR_SSL_')
    ? 'it seems to speak no TLS: ask for plain HTTP if that is meant'
    : 'is the server running and the name right?'
  return new RegistryError(
    'UNREACHABLE',
    `no connection to ${at} (${code === '' ? describe(error) : code}); ${next}`,
    cause,
  )
}

function errorCode(error: unknown): string {
  if (!(error instanceof Error)) return ''
  const { code } = error as NodeJS.ErrnoException
  if (typeof code === 'string') return code
  // Several addresses were tried (happy eyeballs): the first failure speaks for all.
  if (error instanceof AggregateError) return errorCode(error.errors[0])
  return error.cause === undefined ? '' : errorCode(error.cause)
}

function describe(error: unknown): string {
  return error instanceof Error ? error.name : 'unknown error'
}
