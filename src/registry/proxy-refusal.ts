import { RegistryError } from './errors.ts'
import type { Route } from './forward-proxy.ts'
import type { HttpHeaders, HttpRequest } from './http.ts'
import { withoutRetry } from './retry.ts'

/** Says where an error comes from: `proxy` itself, the `backend` behind it, or the `dfdaemon` between them. */
const ERROR_TYPE = 'x-dragonfly-error-type'

/** Errors of a proxy that has too much to do: the next try should go past it. */
const throttled = new WeakSet<Error>()
/** A proxy's refusals that the server's own answer must not replace: by them the retry decides. */
const refusals = new WeakSet<Error>()
/** What a seed peer was asked for and did not bring: it tried for itself, so the next try is the last, and goes past it. */
const peerFailures = new WeakSet<Error>()

/** Whether an error, or its cause, is a proxy's own refusal to do more now (429). */
export function isProxyThrottle(error: unknown): boolean {
  return error instanceof Error && (throttled.has(error) || isProxyThrottle(error.cause))
}

/** Whether an error, or its cause, is what came of asking a seed peer. */
export function isPeerFailure(error: unknown): boolean {
  return error instanceof Error && (peerFailures.has(error) || isPeerFailure(error.cause))
}

/** Marks what came of asking a seed peer. */
export function fromPeer<E extends Error>(error: E): E {
  peerFailures.add(error)
  return error
}

export function isOwnRefusal(error: unknown): boolean {
  return error instanceof Error && refusals.has(error)
}

/** Who is at fault, where an answer says it. */
export function errorType(headers: HttpHeaders): string | undefined {
  const type = headers[ERROR_TYPE]
  return typeof type === 'string' ? type : undefined
}

/** Whether an answer is the proxy's own refusal. */
export function isProxyRefusal(headers: HttpHeaders): boolean {
  return errorType(headers) === 'proxy'
}

/** The error that a proxy's own refusal is. */
export function refusal({ url }: HttpRequest, { purpose }: Route, status: number): RegistryError {
  const said = `cannot ask ${url.host}: the proxy itself answers ${status}`
  const error =
    status === 429
      ? new RegistryError('THROTTLED', `${said}: it limits requests`, { status })
      : status === 403
        ? new RegistryError('FORBIDDEN', `${said}: it blocks this request`, { status })
        : new RegistryError('UNAVAILABLE', said, { status })
  refusals.add(error)
  if (status === 429) throttled.add(error)
  // What is fetched ahead is not worth a try past the proxy.
  return status === 429 && purpose === 'prefetch' ? withoutRetry(error) : error
}
