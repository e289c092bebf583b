import { existsSync } from 'node:fs'
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import pLimit from 'p-limit'
import { type Digest, digestHex, parseDigest, parseReference, type Reference } from '../../registry/index.ts'
import { unlessAborted } from '../daemons/turns.ts'
import { plainLayer, type VisitParts, visitRepository } from '../detect/index.ts'
import { SnapshotterError } from '../errors.ts'
import { CRI_IMAGE_LAYERS, CRI_IMAGE_REF, CRI_LAYER_DIGEST, CRI_MANIFEST_DIGEST, TARFS_HINT } from '../labels.ts'
import type { Labels } from '../snapshot.ts'
import { runNydusImage } from '../nydus-image.ts'

export interface LayerConversionsParts extends VisitParts {
  /** nydus-image. */
  readonly program: string
  /** For metadata. */
  readonly directory: string
  /** For tars. */
  readonly cacheDir: string
  /** Layers at the same time; 0: as many as is good. */
  readonly concurrency: number
  /** Only images whose manifest asks for it. */
  readonly hint: boolean
  readonly signal: AbortSignal
  /** Resolves when nothing is being removed from the cache that was being removed now; what is under way here is not removed from then on. */
  readonly noRemoval: () => Promise<void>
  readonly log: { debug(line: string): void }
}

interface Conversion {
  readonly done: Promise<void>
  /** When nobody needs to be told any more that a layer was converted: its snapshot is there, or nobody wants it. */
  until: number
}

const SHA256 = /^sha256:[0-9a-f]{64}$/
const AT_ONCE = 4
const MAX_LAYERS = 1000
/** Longest tar. */
const MAX_TAR_BYTES = 2 ** 40
const UNFINISHED = '.tarfs.tmp'
const RECENT_MS = 10 * 60_000
const MAX_HINTS = 50

/** Fetches layers and writes metadata over them, each once, however many ask for it. What was begun goes on when the one who asked gives up: containerd tries a pull again. */
export class LayerConversions {
  readonly #parts: LayerConversionsParts
  readonly #limit: ReturnType<typeof pLimit>
  readonly #conversions = new Map<string, Conversion>()
  /** Whether images ask for it, by the digest of their manifest. */
  readonly #hints = new Map<string, boolean>()
  readonly #begun: Promise<void>

  constructor(parts: LayerConversionsParts) {
    this.#parts = parts
    this.#limit = pLimit(parts.concurrency || AT_ONCE)
    this.#begun = this.#prepareFolders()
  }

  /** The digest in hex of the layer that the labels tell, when it is converted. Undefined: they do not tell one, or the image is not to be run in this way. Throws SnapshotterError. */
  async take(labels: Labels, signal: AbortSignal): Promise<string | undefined> {
    const wanted = wantedLayer(labels)
    if (wanted === undefined || !(await this.#isAskedFor(wanted.reference, labels, signal))) return undefined
    for (const digest of layersAbove(labels)) this.#convert(digest, wanted.reference, labels).catch(() => {}) // told when it is taken
    const hex = digestHex(wanted.digest)
    await unlessAborted(this.#convert(wanted.digest, wanted.reference, labels), signal)
    return hex
  }

  /** Layers, in hex, that are under way, or were not long ago. */
  *recent(): Iterable<string> {
    const now = performance.now()
    for (const [hex, { until }] of this.#conversions)
      if (until > now) yield hex
      else this.#conversions.delete(hex)
  }

  async settled(): Promise<void> {
    await Promise.allSettled([...this.#conversions.values()].map(({ done }) => done))
  }

  #convert(digest: Digest, reference: Reference, labels: Labels): Promise<void> {
    const hex = digestHex(digest)
    const known = this.#conversions.get(hex)
    if (known !== undefined && this.#isThere(hex, known)) return known.done
    const done = this.#limit(async () => {
      await this.#begun
      await this.#convertNow(digest, reference, labels)
    })
    const conversion: Conversion = { done, until: Infinity }
    this.#conversions.set(hex, conversion)
    done.then(
      () => {
        conversion.until = performance.now() + RECENT_MS
      },
      () => {
        if (this.#conversions.get(hex) === conversion) this.#conversions.delete(hex)
      },
    )
    return done
  }

  /** One that has ended may have been removed since. */
  #isThere(hex: string, { until }: Conversion): boolean {
    return until === Infinity || (existsSync(this.#tar(hex)) && existsSync(this.#bootstrap(hex)))
  }

  async #convertNow(digest: Digest, reference: Reference, labels: Labels): Promise<void> {
    const hex = digestHex(digest)
    const [tar, bootstrap] = [this.#tar(hex), this.#bootstrap(hex)]
    const { signal, program, cacheDir, log } = this.#parts
    const started = performance.now()
    await this.#parts.noRemoval()
    if (!existsSync(tar)) await this.#fetch(digest, reference, labels, tar)
    if (existsSync(bootstrap)) return
    const unfinished = `${bootstrap}${UNFINISHED}`
    const args = [
      'create',
      '--type',
      'tar-tarfs',
      '--bootstrap',
      unfinished,
      '--blob-id',
      hex,
      '--blob-dir',
      cacheDir,
      tar,
    ]
    await runNydusImage(program, args, signal)
    await rename(unfinished, bootstrap)
    log.debug(`layer ${digest} runs from its tar after ${Math.round(performance.now() - started)} ms`)
  }

  /** It has its name when it is whole, its digest was compared, and it is on the disk. */
  async #fetch(digest: Digest, reference: Reference, labels: Labels, tar: string): Promise<void> {
    const unfinished = `${tar}${UNFINISHED}`
    await rm(unfinished, { force: true })
    const file = await open(unfinished, 'wx', 0o644)
    try {
      const { signal } = this.#parts
      await visitRepository(this.#parts, { reference, labels }, signal, async (repository) => {
        const stored = repository.blobStream(digest, { signal })
        for await (const bytes of plainLayer(untilItsEnd(stored), MAX_TAR_BYTES)) await file.writeFile(bytes)
        // The digest is that of all bytes.
        for await (const _ of stored);
      })
      await file.sync()
      await rename(unfinished, tar)
    } finally {
      await file.close()
      await rm(unfinished, { force: true })
    }
  }

  async #isAskedFor(reference: Reference, labels: Labels, signal: AbortSignal): Promise<boolean> {
    if (!this.#parts.hint) return true
    const manifest = labels.get(CRI_MANIFEST_DIGEST) ?? ''
    const known = this.#hints.get(manifest)
    if (known !== undefined) return known
    const found = await visitRepository(this.#parts, { reference, labels }, signal, async (repository) => {
      const { parsed } = await repository.manifest(manifest, { signal })
      return parsed.kind === 'image' && parsed.image.annotations?.[TARFS_HINT] !== undefined
    })
    const [oldest] = this.#hints.keys()
    if (this.#hints.size >= MAX_HINTS && oldest !== undefined) this.#hints.delete(oldest)
    this.#hints.set(manifest, found)
    return found
  }

  /** Leftovers of a process that died go. */
  async #prepareFolders(): Promise<void> {
    const { directory, cacheDir } = this.#parts
    for (const folder of [directory, cacheDir]) {
      await mkdir(folder, { recursive: true, mode: 0o700 })
      for (const name of await readdir(folder))
        if (name.endsWith(UNFINISHED)) await rm(join(folder, name), { force: true })
    }
  }

  #tar(hex: string): string {
    return join(this.#parts.cacheDir, hex)
  }

  #bootstrap(hex: string): string {
    return join(this.#parts.directory, `${hex}.boot`)
  }
}

function wantedLayer(labels: Labels): { readonly digest: Digest; readonly reference: Reference } | undefined {
  const [reference, digest] = [labels.get(CRI_IMAGE_REF), labels.get(CRI_LAYER_DIGEST)]
  if (reference === undefined || digest === undefined || !labels.has(CRI_MANIFEST_DIGEST)) return undefined
  // Others are no names of blobs.
  if (!SHA256.test(digest)) return undefined
  try {
    return { digest: parseDigest(digest), reference: parseReference(reference) }
  } catch (error) {
    throw new SnapshotterError(
      'INVALID_ARGUMENT',
      `the labels of the layer do not tell an image: ${(error as Error).message}`,
      { cause: error },
    )
  }
}

/** The first is the layer itself. The list may be cut short, in the middle of a digest. */
function layersAbove(labels: Labels): Digest[] {
  const found: Digest[] = []
  for (const text of (labels.get(CRI_IMAGE_LAYERS) ?? '').split(',').slice(1, MAX_LAYERS))
    if (SHA256.test(text)) found.push(parseDigest(text))
  return found
}

/** Who stops reading does not end the generator: what is left of it is read afterwards. */
function untilItsEnd(generator: AsyncGenerator<Uint8Array, void, undefined>): AsyncIterable<Uint8Array> {
  return { [Symbol.asyncIterator]: () => ({ next: () => generator.next() }) }
}
