import {
  type Digest,
  parseDigest,
  parseReference,
  type Reference,
  referenceTarget,
  type Repository,
} from '../../registry/index.ts'
import type { SnapshotterError } from '../errors.ts'
import { JoinedWork } from '../joined-work.ts'
import { CRI_IMAGE_REF, CRI_MANIFEST_DIGEST } from '../labels.ts'
import type { Labels } from '../snapshot.ts'
import { fetchBootstrapLayer } from './bootstrap-layer.ts'
import { type FoundBootstrap, foundBootstrap, labelledBootstrap } from './found-bootstrap.ts'
import { findInIndex, findReferrer } from './nydus-manifest.ts'
import { Remembered } from './remembered.ts'
import { type VisitParts, visitRepository, within } from './visit-repository.ts'

export interface DetectorParts extends VisitParts {
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
  /** By which labels it was asked for last: they may hold the login. */
  readonly #labels = new WeakMap<FoundBootstrap, Labels>()

  constructor(parts: DetectorParts) {
    this.#parts = parts
  }

  /**
   * By the labels of any of the image's layers. Undefined: it has none, or the labels do not tell which image it is. Throws SnapshotterError 'UNAVAILABLE' when the registry does not say, 'DEADLINE_EXCEEDED', 'CANCELLED'.
   */
  async find(labels: Labels, signal: AbortSignal): Promise<FoundBootstrap | undefined> {
    const found = await this.#find(labels, signal)
    if (found !== undefined) this.#labels.set(found, labels)
    return found
  }

  async #find(labels: Labels, signal: AbortSignal): Promise<FoundBootstrap | undefined> {
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
    const { digest, size } = found
    const visited = { reference: parseReference(found.reference), labels: this.#labels.get(found) ?? new Map() }
    const fetched = (all: AbortSignal): Promise<string> => {
      const limited = within(all, FETCH_DEADLINE_MS)
      return visitRepository(this.#parts, visited, limited, (repository) =>
        fetchBootstrapLayer({ repository, digest, size, directory, signal: limited }),
      )
    }
    return await this.#fetching.do(directory, fetched, signal)
  }

  async #ask(wanted: Wanted, labels: Labels, key: string, signal: AbortSignal): Promise<FoundBootstrap | undefined> {
    const { log } = this.#parts
    const about = `a Nydus form of ${wanted.text}`
    try {
      const limited = within(signal, FIND_DEADLINE_MS)
      const visited = { reference: wanted.reference, labels }
      const found = await visitRepository(this.#parts, visited, limited, (repository) =>
        this.#look(repository, wanted, limited),
      )
      log.debug(found === undefined ? `there is no ${about.slice(2)}` : `${about} is ${found.digest} (${found.kind})`)
      this.#answers.set(key, { found }, found === undefined ? NONE_MS : FOUND_MS)
      return found
    } catch (error) {
      if (signal.aborted) throw error
      const coded = error as SnapshotterError // of `visitRepository`
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
