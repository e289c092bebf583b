import { normalHost } from '../../../registry/index.ts'
import { type Credential, credentialOf, credentialOfBase64 } from '../credential.ts'

export const SECRET_TYPE = 'kubernetes.io/dockerconfigjson'
const DATA_KEY = '.dockerconfigjson'
const MAX_LOGINS = 10_000

/** Secrets of an API server, as far as they are read here. */
export interface SecretObject {
  readonly metadata?: { readonly namespace?: unknown; readonly name?: unknown; readonly resourceVersion?: unknown }
  readonly type?: unknown
  readonly data?: Readonly<Record<string, unknown>> | null
}

/** Logins by pattern for images (host, perhaps with `*`, port and path). Undefined for a secret that cannot be used; none of its text is in any message. */
export function loginsOf(secret: SecretObject): ReadonlyMap<string, Credential> | undefined {
  const encoded = secret.data?.[DATA_KEY]
  if (secret.type !== SECRET_TYPE || typeof encoded !== 'string') return undefined
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(encoded, 'base64').toString('utf8'))
  } catch {
    return undefined // the text is secret
  }
  const auths = (value as { auths?: unknown } | null)?.auths
  if (typeof auths !== 'object' || auths === null || Array.isArray(auths)) return undefined
  const logins = new Map<string, Credential>()
  for (const [key, entry] of Object.entries(auths).slice(0, MAX_LOGINS)) {
    const credential = credentialOfEntry(entry)
    if (credential !== undefined) logins.set(patternOf(key), credential)
  }
  return logins
}

function credentialOfEntry(entry: unknown): Credential | undefined {
  if (typeof entry !== 'object' || entry === null) return undefined
  const { auth, username, password } = entry as Readonly<Record<string, unknown>>
  if (typeof username === 'string' && username !== '' && typeof password === 'string')
    return credentialOf(username, password)
  return typeof auth === 'string' ? credentialOfBase64(auth) : undefined
}

/** Keys may be URLs, and have the `/v1/` or `/v2/` of old clients. Source: Kubernetes, "Config.json", and its keyring. */
function patternOf(key: string): string {
  const [, host = '', path = ''] = /^([^/]*)(.*)$/s.exec(key.replace(/^https?:\/\//, '')) ?? []
  const rest = path.replace(/^\/v[12](?=\/|$)/, '').replace(/\/+$/, '')
  return `${normalHost(host)}${rest}`
}
