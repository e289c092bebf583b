import { serveBlob } from './blob-routes.ts'
import type { Exchange } from './exchange.ts'
import type { RouteName } from './faults.ts'
import { serveCatalog, serveReferrers, serveTags } from './listing-routes.ts'
import { serveManifest } from './manifest-routes.ts'
import type { Access, Gate } from './server-auth.ts'
import { SpecError } from './spec-error.ts'
import type { Store } from './store.ts'
import { continueUpload, startUpload } from './upload-routes.ts'
import type { UploadSessions } from './upload-sessions.ts'

/** A path that was understood. */
export interface FoundRoute {
  readonly route: RouteName
  readonly name: string
  /** What stands behind the name: digest, tag or session. */
  readonly rest: string
  access(exchange: Exchange): Access
}

export interface Services {
  readonly store: Store
  readonly sessions: UploadSessions
  readonly gate: Gate
}

/** Names have slashes: the last possible place of the word counts. */
const PATTERNS: readonly (readonly [RegExp, RouteName])[] = [
  [/^\/v2\/?$/, 'base'],
  [/^\/v2\/_catalog$/, 'catalog'],
  [/^\/token$/, 'token'],
  [/^\/v2\/(?<name>.+)\/blobs\/uploads\/(?<rest>[^/]*)$/, 'upload'],
  [/^\/v2\/(?<name>.+)\/blobs\/uploads$/, 'upload'],
  [/^\/v2\/(?<name>.+)\/blobs\/(?<rest>[^/]+)$/, 'blob'],
  [/^\/v2\/(?<name>.+)\/manifests\/(?<rest>[^/]+)$/, 'manifest'],
  [/^\/v2\/(?<name>.+)\/tags\/list$/, 'tags'],
  [/^\/v2\/(?<name>.+)\/referrers\/(?<rest>[^/]+)$/, 'referrers'],
]

export function findRoute(path: string): FoundRoute {
  for (const [pattern, route] of PATTERNS) {
    const match = pattern.exec(path)
    if (match === null) continue
    const name = match.groups?.['name'] ?? ''
    return { route, name, rest: decoded(match.groups?.['rest'] ?? ''), access: (exchange) => accessOf(exchange, name) }
  }
  return { route: 'other', name: '', rest: '', access: (exchange) => accessOf(exchange, '') }
}

export function serveRoute(exchange: Exchange, found: FoundRoute, services: Services): Promise<void> {
  const { name, rest, route } = found
  const { store, sessions, gate } = services
  switch (route) {
    case 'base':
      return exchange.json(200, {}, { 'docker-distribution-api-version': 'registry/2.0' })
    case 'blob':
      return serveBlob(exchange, store, name, rest)
    case 'upload':
      return rest === ''
        ? startUpload(exchange, { store, sessions, name })
        : continueUpload(exchange, { store, sessions, name }, rest)
    case 'manifest':
      return serveManifest(exchange, store, name, rest)
    case 'tags':
      return serveTags(exchange, store, name)
    case 'referrers':
      return serveReferrers(exchange, store, name, rest)
    case 'catalog':
      return serveCatalog(exchange, store)
    case 'token':
      return gate.serveToken(exchange)
    case 'other':
      throw new SpecError('UNSUPPORTED', 'there is nothing at this path', { status: 404 })
    default:
      return route satisfies never
  }
}

function accessOf(exchange: Exchange, name: string): Access {
  const { method } = exchange
  const reads = method === 'GET' || method === 'HEAD'
  const actions = reads
    ? (['pull'] as const)
    : method === 'DELETE' && !exchange.url.pathname.includes('/blobs/uploads/')
      ? (['delete'] as const)
      : (['push'] as const)
  // Sessions are looked at by who uploads.
  const from = method === 'POST' && exchange.query('mount') !== undefined ? exchange.query('from') : undefined
  return { name: name === '' ? undefined : name, actions, mountFrom: from }
}

/** `sha256%3A…` is a way to write a digest in a path. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text // not an escape: the checks of names and digests will refuse it
  }
}
