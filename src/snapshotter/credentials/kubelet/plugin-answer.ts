import { SnapshotterError } from '../../errors.ts'
import { goDuration } from '../../settings/index.ts'
import { type Credential, credentialOf } from '../credential.ts'
import { EXCHANGE_VERSION } from './plugin-config.ts'

/** For what a plugin's answer holds. */
export type AnswerScope = 'Image' | 'Registry' | 'Global'

export interface PluginAnswer {
  readonly scope: AnswerScope
  /** Undefined: as the configuration says. 0: ask again each time. */
  readonly cacheMs: number | undefined
  /** By pattern for images. Undefined: it has none for the image. */
  readonly logins: ReadonlyMap<string, Credential> | undefined
}

const SCOPES: readonly string[] = ['Image', 'Registry', 'Global'] satisfies AnswerScope[]
const MAX_LOGINS = 10_000

/** Reads a `CredentialProviderResponse`. Throws SnapshotterError 'UNAVAILABLE' that names the field and shows none of the text. */
export function parsePluginAnswer(text: string, plugin: string): PluginAnswer {
  const bad = (why: string): SnapshotterError =>
    new SnapshotterError('UNAVAILABLE', `cannot use the answer of credential provider ${plugin}: ${why}`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // The text holds a secret: neither it nor the parser's message goes further.
  }
  if (!isFields(value)) throw bad('it is not a JSON object')
  if (value['apiVersion'] !== EXCHANGE_VERSION) throw bad(`apiVersion must be ${EXCHANGE_VERSION}`)
  const { cacheKeyType, cacheDuration } = value
  const auth = value['auth'] ?? undefined
  const lacksDuration = cacheDuration === undefined || cacheDuration === null
  const cacheMs = lacksDuration ? undefined : typeof cacheDuration === 'string' ? goDuration(cacheDuration) : Number.NaN
  if (Number.isNaN(cacheMs)) throw bad('cacheDuration must be a duration such as "10m"')
  if (auth === undefined) return { scope: 'Image', cacheMs, logins: undefined }
  if (typeof cacheKeyType !== 'string' || !SCOPES.includes(cacheKeyType))
    throw bad(`cacheKeyType must be one of ${SCOPES.join(', ')}`)
  if (!isFields(auth)) throw bad('auth must be an object')
  const entries = Object.entries(auth)
  if (entries.length > MAX_LOGINS) throw bad(`auth has ${entries.length} entries, at most ${MAX_LOGINS} are used`)
  const logins = new Map<string, Credential>()
  for (const [pattern, login] of entries) {
    const { username = '', password = '' } = isFields(login) ? login : {}
    if (typeof username !== 'string' || typeof password !== 'string')
      throw bad('an entry of auth has no username and password')
    const credential = credentialOf(username, password)
    if (credential !== undefined) logins.set(pattern, credential)
  }
  return { scope: cacheKeyType as AnswerScope, cacheMs, logins } // checked above
}

function isFields(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
