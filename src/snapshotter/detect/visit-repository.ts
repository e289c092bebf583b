import {
  anonymous,
  type CredentialSource,
  formatReference,
  fromPassword,
  fromRegistryToken,
  type Reference,
  RegistryClient,
  RegistryError,
  type RegistryErrorCode,
  type Repository,
} from '../../registry/index.ts'
import { type CredentialFinder, TokenCredential } from '../credentials/index.ts'
import { SnapshotterError, type SnapshotterErrorCode } from '../errors.ts'
import type { Labels } from '../snapshot.ts'
import type { RegistryAccess } from './registry-access.ts'
import { deadlineSignal } from '../../kernel/index.ts'

/** How repositories are reached, and as whom. */
export interface VisitParts {
  readonly credentials: CredentialFinder
  readonly access: RegistryAccess
}

/** The image whose repository it is, and labels that may hold a login for it. */
export interface Visited {
  readonly reference: Reference
  readonly labels: Labels
}

/**
 * Does something with the repository of an image, by a client of its own with the image's login. All that is thrown is SnapshotterError: what `use` throws of these, else 'NOT_FOUND'; 'BAD_STATE' for answers that would be no better next time;
 * 'UNAVAILABLE' for what may be; 'DEADLINE_EXCEEDED', 'CANCELLED'.
 */
export async function visitRepository<T>(
  { credentials, access }: VisitParts,
  { reference, labels }: Visited,
  signal: AbortSignal,
  use: (repository: Repository) => Promise<T>,
): Promise<T> {
  const source = await login(credentials, reference, labels, signal)
  const client = new RegistryClient({ ...access, credentials: source, retry: { attempts: 3 } })
  try {
    return await use(client.repository(reference))
  } catch (error) {
    if (error instanceof SnapshotterError) throw error
    const text = `${reference.host}/${reference.repository}: ${(error as Error).message}`
    const code = error instanceof RegistryError ? codeOf(error, signal) : 'INTERNAL'
    throw new SnapshotterError(code, text, { cause: error })
  } finally {
    await client.close()
  }
}

async function login(
  credentials: CredentialFinder,
  reference: Reference,
  labels: Labels,
  signal: AbortSignal,
): Promise<CredentialSource> {
  const found = await credentials.find(formatReference(reference), labels, signal)
  if (found === undefined) return anonymous()
  return found instanceof TokenCredential
    ? fromRegistryToken(found.token)
    : fromPassword(found.username, found.password)
}

/** Bad answers are no better next time; all else may be. */
const LASTING: ReadonlyMap<RegistryErrorCode, SnapshotterErrorCode> = new Map([
  ['NOT_FOUND', 'NOT_FOUND'],
  ['BAD_REFERENCE', 'BAD_STATE'],
  ['BAD_DIGEST', 'BAD_STATE'],
  ['BAD_MANIFEST', 'BAD_STATE'],
  ['BAD_RESPONSE', 'BAD_STATE'],
  ['DIGEST_MISMATCH', 'BAD_STATE'],
  ['UNSUPPORTED', 'BAD_STATE'],
  ['BAD_CONFIG', 'BAD_CONFIG'],
])

function codeOf({ code }: RegistryError, signal: AbortSignal): SnapshotterErrorCode {
  if (code !== 'ABORTED') return LASTING.get(code) ?? 'UNAVAILABLE'
  const isLate = signal.reason instanceof DOMException && signal.reason.name === 'TimeoutError'
  return isLate ? 'DEADLINE_EXCEEDED' : 'CANCELLED'
}

/** Aborted with `signal`, and when the time is over. */
export function within(signal: AbortSignal, ms: number): AbortSignal {
  return AbortSignal.any([signal, deadlineSignal(ms)])
}
