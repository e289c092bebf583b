import type { Digest } from '../digest.ts'
import { MEDIA_TYPES, parseManifest } from '../manifest.ts'
import { notAllowed, requestDigest } from './blob-routes.ts'
import type { Exchange } from './exchange.ts'
import { SpecError } from './spec-error.ts'
import type { StoredManifest } from './store.ts'
import { checkName } from './store.ts'
import type { Store } from './store.ts'

const MAX_PAGE = 10_000

/** `{name}/tags/list`. */
export async function serveTags(exchange: Exchange, store: Store, name: string): Promise<void> {
  onlyGet(exchange)
  if (!(await store.hasRepository(name))) throw new SpecError('NAME_UNKNOWN', `there is no repository ${name}`)
  const { page, headers } = paged(exchange, await store.tags(name))
  return exchange.json(200, { name, tags: page }, headers)
}

/** `_catalog`: not of the specification, but all registries have it. */
export async function serveCatalog(exchange: Exchange, store: Store): Promise<void> {
  onlyGet(exchange)
  const { page, headers } = paged(exchange, await store.repositories())
  return exchange.json(200, { repositories: page }, headers)
}

/** `{name}/referrers/{digest}`: an index, empty when nobody refers to it. */
export async function serveReferrers(exchange: Exchange, store: Store, name: string, ref: string): Promise<void> {
  onlyGet(exchange)
  checkName(name)
  const subject = requestDigest(ref)
  const wanted = exchange.query('artifactType')
  const manifests: ReferrerEntry[] = []
  for (const digest of await store.referrers(name, subject)) {
    const manifest = await store.manifest(name, digest)
    // Gone between the two reads.
    if (manifest === undefined) continue
    const entry = referrerEntry(manifest)
    if (wanted === undefined || entry.artifactType === wanted) manifests.push(entry)
  }
  const headers = {
    'content-type': MEDIA_TYPES.ociIndex,
    ...(wanted === undefined ? {} : { 'oci-filters-applied': 'artifactType' }),
  }
  return exchange.json(200, { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }, headers)
}

interface ReferrerEntry {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly artifactType?: string
  readonly annotations?: Readonly<Record<string, string>>
}

/** The artifact type is the manifest's own, else the media type of its config; annotations are copied. */
function referrerEntry({ digest, mediaType, bytes }: StoredManifest): ReferrerEntry {
  const parsed = parseManifest(bytes, mediaType)
  const { artifactType, annotations } = parsed.kind === 'image' ? parsed.image : parsed.index
  const type = artifactType ?? (parsed.kind === 'image' ? parsed.image.config.mediaType : undefined)
  return {
    mediaType,
    digest,
    size: bytes.length,
    ...(type === undefined ? {} : { artifactType: type }),
    ...(annotations === undefined ? {} : { annotations }),
  }
}

/** `n` and `last`; the next page in a Link header. */
function paged(exchange: Exchange, all: readonly string[]): { page: string[]; headers: Record<string, string> } {
  const last = exchange.query('last')
  const asked = exchange.query('n')
  if (asked !== undefined && !/^\d{1,9}$/.test(asked))
    throw new SpecError('UNSUPPORTED', 'n must be a number', { status: 400 })
  const count = Math.min(asked === undefined ? MAX_PAGE : Number(asked), MAX_PAGE)
  const rest = last === undefined ? all : all.filter((entry) => entry > last)
  const page = rest.slice(0, count)
  const end = page.at(-1)
  if (end === undefined || rest.length <= count) return { page, headers: {} }
  const next = `${exchange.url.pathname}?n=${count}&last=${encodeURIComponent(end)}`
  return { page, headers: { link: `<${next}>; rel="next"` } }
}

function onlyGet(exchange: Exchange): void {
  if (exchange.method !== 'GET' && exchange.method !== 'HEAD') throw notAllowed('GET')
}
