import { gunzipSync } from 'node:zlib'
import { type Digest, digestHex, digestOf, parseDigest, parseReference, type Repository } from '../../registry/index.ts'
import { TarReader } from '../../tar/index.ts'
import { SnapshotterError } from '../errors.ts'
import { CRI_IMAGE_REF, CRI_LAYER_DIGEST, STARGZ_REFERENCE, STARGZ_TOC_DIGEST } from '../labels.ts'
import type { Labels } from '../snapshot.ts'
import { FOOTER_BYTES, parseStargzFooter } from './stargz-footer.ts'
import { type VisitParts, visitRepository, within } from './visit-repository.ts'

/** What a bootstrap over the layer is built from: `nydus-image create -t estargztoc-ref`. */
export interface StargzLayer {
  /** SHA-256 of the layer, in hexadecimal: the id of its blob. */
  readonly blobId: string
  /** Bytes of the layer as stored. */
  readonly blobSize: number
  /** The table of contents, JSON; its digest is the one that the image's manifest has for it. */
  readonly toc: Uint8Array
}

export interface StargzProbeParts extends VisitParts {
  readonly log: { debug(line: string): void; warn(line: string): void }
}

const TOC_NAME = 'stargz.index.json'
const MAX_STORED_TOC_BYTES = 128 * 1024 * 1024
const MAX_TOC_BYTES = 512 * 1024 * 1024
/** Of the tar around it: header, padding, end. */
const TAR_BYTES = 64 * 1024
const DEADLINE_MS = 60_000

interface Wanted {
  readonly reference: string
  readonly layer: Digest
  readonly toc: Digest
}

/**
 * Finds the tables of contents of eStargz layers. Only of layers whose manifest has the table's digest (annotation `containerd.io/snapshot/stargz/toc.digest`, which builders write): of others nobody knows that the table is right, since the layer's own digest is
 * known only when all of it has been read. So other layers cost no request.
 */
export class StargzProbe {
  readonly #parts: StargzProbeParts

  constructor(parts: StargzProbeParts) {
    this.#parts = parts
  }

  /** By a layer's labels. Undefined: it is no eStargz layer that can be trusted. Throws SnapshotterError 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED'. */
  async find(labels: Labels, signal: AbortSignal): Promise<StargzLayer | undefined> {
    const wanted = wantedLayer(labels)
    if (wanted === undefined) return undefined
    const limited = within(signal, DEADLINE_MS)
    const visited = { reference: parseReference(wanted.reference), labels }
    try {
      return await visitRepository(this.#parts, visited, limited, (repository) => readToc(repository, wanted, limited))
    } catch (error) {
      const { code, message } = error as SnapshotterError // of `visitRepository`
      if (code !== 'BAD_STATE' && code !== 'NOT_FOUND') throw error
      this.#parts.log.warn(`layer ${wanted.layer} is taken as a plain one: ${message}`)
      return undefined
    }
  }
}

function wantedLayer(labels: Labels): Wanted | undefined {
  const [reference, layer, toc] = [
    labels.get(CRI_IMAGE_REF) ?? labels.get(STARGZ_REFERENCE),
    labels.get(CRI_LAYER_DIGEST),
    labels.get(STARGZ_TOC_DIGEST),
  ]
  if (reference === undefined || layer === undefined || toc === undefined) return undefined
  try {
    parseReference(reference)
    return { reference, layer: parseDigest(layer), toc: parseDigest(toc) }
  } catch {
    return undefined // whoever wrote them did not mean an image
  }
}

async function readToc(repository: Repository, { layer, toc }: Wanted, signal: AbortSignal): Promise<StargzLayer> {
  const bad = (why: string, cause?: unknown): SnapshotterError => new SnapshotterError('BAD_STATE', why, { cause })
  if (!layer.startsWith('sha256:')) throw bad('its digest is not SHA-256')
  const blobSize = await repository.blobSize(layer, { signal })
  if (blobSize <= FOOTER_BYTES) throw bad('it is too small for an eStargz footer')
  const end = new Uint8Array(FOOTER_BYTES)
  await repository.readRange(layer, blobSize - FOOTER_BYTES, end, { signal })
  const footer = parseStargzFooter(end)
  if (footer === undefined) throw bad('it has no eStargz footer')
  const size = blobSize - footer.bytes - footer.tocOffset
  if (size < 1 || size > MAX_STORED_TOC_BYTES)
    throw bad(`its table of contents would have ${size} stored bytes, 1 to ${MAX_STORED_TOC_BYTES} are read`)
  const stored = new Uint8Array(size)
  await repository.readRange(layer, footer.tocOffset, stored, { signal })
  let tar: Uint8Array
  try {
    tar = gunzipSync(stored, { maxOutputLength: MAX_TOC_BYTES + TAR_BYTES })
  } catch (error) {
    throw bad(`its table of contents cannot be unpacked: ${(error as Error).message}`, error)
  }
  const content = await readOnlyFile(tar, bad)
  const digest = digestOf(content, toc.startsWith('sha512:') ? 'sha512' : 'sha256')
  if (digest !== toc) throw bad(`its table of contents has digest ${digest}, the image says ${toc}`)
  return { blobId: digestHex(layer), blobSize, toc: content }
}

async function readOnlyFile(
  tar: Uint8Array,
  bad: (why: string, cause?: unknown) => SnapshotterError,
): Promise<Uint8Array> {
  const reader = new TarReader(
    (async function* () {
      yield tar
    })(),
  )
  try {
    const entry = await reader.next()
    const name = Buffer.from(entry?.path ?? []).toString('utf8')
    if (entry?.type !== 'file' || name !== TOC_NAME || entry.size > tar.length)
      throw bad(`where its table of contents belongs is ${JSON.stringify(name.slice(0, 100))}`)
    const content = new Uint8Array(entry.size)
    for (let filled = 0; filled < content.length; ) {
      const count = await reader.read(content.subarray(filled))
      if (count === 0) throw bad('its table of contents ends early')
      filled += count
    }
    return content
  } catch (error) {
    if (error instanceof SnapshotterError) throw error
    throw bad(`its table of contents is in no tar: ${(error as Error).message}`, error)
  } finally {
    await reader.close()
  }
}
