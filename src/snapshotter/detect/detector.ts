import {
  anonymous,
  type CredentialSource,
  type Digest,
  formatReference,
  fromPassword,
  fromRegistryToken,
  parseDigest,
  parseReference,
  type Reference,
  referenceTarget,
  RegistryClient,
  RegistryError,
  type RegistryErrorCode,
  type Repository,
} from '../../registry/index.ts'
import { type CredentialFinder, TokenCredential } from '../credentials/index.ts'
import { SnapshotterError, type SnapshotterErrorCode } from '../errors.ts'
import { JoinedWork } from '../joined-work.ts'
import { CRI_IMAGE_REF, CRI_MANIFEST_DIGEST } from '../labels.ts'
import type { Labels } from '../snapshot.ts'
import { fetchBootstrapLayer } from './bootstrap-layer.ts'
import { type FoundBootstrap, foundBootstrap, labelledBootstrap } from './found-bootstrap.ts'
import { findInIndex, findReferrer } from './nydus-manifest.ts'
import type { RegistryAccess } from './registry-access.ts'
import { Remembered } from './remembered.ts'

export interface DetectorParts {
  readonly credentials: CredentialFinder
  readonly access: RegistryAccess
  /** `experimental.enable_index_detect`, which is asked first, and `experimental.enable_referrer_detect`. */
  readonly index: boolean
  readonly referrer: boolean
  readonly log: { debug(line: string): void; warn(line: string): void }
}

interface Wanted {
  readonly reference: Reference
  /** As the label has it. */
  readonly text: string
  /** Digest of the image's manifest. */
  readonly manifest: Digest
}

type Answer = { readonly found: FoundBootstrap | undefined } | { readonly error: SnapshotterError }

const MOST_ANSWERS = 500
const FOUND_MS = 24 * 3_600_000
/** Somebody may push one meanwhile. */
const NONE_MS = 10 * 60_000
/** The layers of an image come one after the other, and each asks: a registry that is ill is asked once. */
const FAILED_MS = 10_000
const FIND_DEADLINE_MS = 20_000
const FETCH_DEADLINE_MS = 300_000

/**
 * Finds the Nydus form of an image that was pulled in its plain form: beside it in its index, or referring to it. Answers, also that there is none, hold for a time; what a snapshot's labels say (`FoundBootstrap.labels`)
 * holds for ever. Questions about one image at the same time are one.
 */
export class Detector {
  readonly #parts: DetectorParts
  readonly #answers = new Remembered<Answer>(MOST_ANSWERS)
  readonly #finding = new JoinedWork<FoundBootstrap | undefined>()
  readonly #fetching = new JoinedWork<string>()

  constructor(parts: DetectorParts) {
    this.#parts = parts
  }

  /**
   * By the labels of any of the image's layers. Undefined: it has none, or the labels do not tell which image it is. Throws SnapshotterError 'UNAVAILABLE' when the registry does not say, 'DEADLINE_EXCEEDED', 'CANCELLED'.
   */
  async find(labels: Labels, signal: AbortSignal): Promise<FoundBootstrap | undefined> {
    const wanted = wantedImage(labels)
    if (wanted === undefined) return undefined
    const labelled = labelledBootstrap(labels, wanted.text)
    if (labelled !== undefined) return labelled
    const key = `${wanted.text} ${wanted.manifest}`
    const known = this.#answers.get(key)?.value
    if (known !== undefined) {
      if ('error' in known) throw known.error
      return known.found
    }
    return await this.#finding.do(key, (all) => this.#ask(wanted, labels, key, all), signal)
  }

  /** Fetches the bootstrap into `fs/image.boot` of a snapshot's directory, whole or not at all; gives its path. Throws SnapshotterError. */
  async fetch(found: FoundBootstrap, directory: string, signal: AbortSignal): Promise<string> {
    const { reference, digest, size } = found
    const fetched = (all: AbortSignal): Promise<string> =>
      this.#withRepository(
        parseReference(reference),
        new Map(),
        within(all, FETCH_DEADLINE_MS),
        (repository, limited) => fetchBootstrapLayer({ repository, digest, size, directory, signal: limited }),
      )
    return await this.#fetching.do(directory, fetched, signal)
  }

  async #ask(wanted: Wanted, labels: Labels, key: string, signal: AbortSignal): Promise<FoundBootstrap | undefined> {
    const { log } = this.#parts
    const about = `a Nydus form of ${wanted.text}`
    try {
      const found = await this.#withRepository(
        wanted.reference,
        labels,
        within(signal, FIND_DEADLINE_MS),
        (repository, limited) => this.#look(repository, wanted, limited),
      )
      log.debug(found === undefined ? `there is no ${about.slice(2)}` : `${about} is ${found.digest} (${found.kind})`)
      this.#answers.set(key, { found }, found === undefined ? NONE_MS : FOUND_MS)
      return found
    } catch (error) {
      if (signal.aborted) throw error
      const coded = error as SnapshotterError // of `#withRepository`
      if (coded.code === 'BAD_STATE' || coded.code === 'NOT_FOUND') {
        log.warn(`${about} is not used: ${coded.message}`)
        this.#answers.set(key, { found: undefined }, NONE_MS)
        return undefined
      }
      this.#answers.set(key, { error: coded }, FAILED_MS)
      throw coded
    }
  }

  async #look(repository: Repository, wanted: Wanted, signal: AbortSignal): Promise<FoundBootstrap | undefined> {
    const { text: reference, manifest } = wanted
    if (this.#parts.index) {
      const layer = await findInIndex(repository, referenceTarget(wanted.reference), manifest, signal)
      if (layer !== undefined)
        return foundBootstrap({ kind: 'index', reference, digest: layer.digest, size: layer.size })
    }
    if (!this.#parts.referrer) return undefined
    const layer = await findReferrer(repository, manifest, signal)
    return layer && foundBootstrap({ kind: 'referrer', reference, digest: layer.digest, size: layer.size })
  }

  /** With a client of its own: logins are those of the image. Everything that is thrown is a SnapshotterError. */
  async #withRepository<T>(
    reference: Reference,
    labels: Labels,
    signal: AbortSignal,
    use: (repository: Repository, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const name = `${reference.host}/${reference.repository}`
    const source = await this.#login(reference, labels, signal)
    const client = new RegistryClient({ ...this.#parts.access, credentials: source, retry: { attempts: 3 } })
    try {
      return await use(client.repository(reference), signal)
    } catch (error) {
      if (error instanceof SnapshotterError) throw error
      if (!(error instanceof RegistryError))
        throw new SnapshotterError('INTERNAL', `${name}: ${(error as Error).message}`, { cause: error })
      throw new SnapshotterError(codeOf(error, signal), `${name}: ${error.message}`, { cause: error })
    } finally {
      await client.close()
    }
  }

  async #login(reference: Reference, labels: Labels, signal: AbortSignal): Promise<CredentialSource> {
    const found = await this.#parts.credentials.find(formatReference(reference), labels, signal)
    if (found === undefined) return anonymous()
    return found instanceof TokenCredential
      ? fromRegistryToken(found.token)
      : fromPassword(found.username, found.password)
  }
}

/** Undefined when the labels do not say, or say what no client would. */
function wantedImage(labels: Labels): Wanted | undefined {
  const text = labels.get(CRI_IMAGE_REF)
  const manifest = labels.get(CRI_MANIFEST_DIGEST)
  if (text === undefined || manifest === undefined) return undefined
  try {
    return { reference: parseReference(text), text, manifest: parseDigest(manifest) }
  } catch {
    return undefined // whoever wrote them did not mean an image
  }
}

function within(signal: AbortSignal, ms: number): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(ms)])
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
