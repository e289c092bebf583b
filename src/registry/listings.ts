import type { Digest } from './digest.ts'
import { digestAlgorithm, digestHex } from './digest.ts'
import { RegistryError } from './errors.ts'
import { isRecord } from './json.ts'
import type { Descriptor, ImageIndex } from './manifest.ts'
import { checkDescriptor, MAX_MANIFEST_BYTES, MEDIA_TYPES, parseManifest } from './manifest.ts'
import type { Manifests } from './manifests.ts'
import { isTag } from './reference.ts'
import type { Manifest } from './repository.ts'
import type { Endpoint } from './endpoint.ts'
import type { RegistryAnswer, Transport } from './transport.ts'

export interface ListingsOptions {
  readonly transport: Transport
  readonly endpoint: Endpoint
  readonly repository: string
  readonly manifests: Manifests
}

const PAGE = 1_000
const MAX_PAGES = 1_000
const MAX_ENTRIES = 1_000_000
/** What registries without the referrers API answer for it. */
const NO_REFERRERS: readonly number[] = [400, 404, 405, 501]

/** Lists that come in pages: tags and referrers. */
export class Listings {
  readonly #options: ListingsOptions

  constructor(options: ListingsOptions) {
    this.#options = options
  }

  async tags(signal: AbortSignal): Promise<string[]> {
    const { repository } = this.#options
    const what = `list the tags of ${repository}`
    const tags: string[] = []
    for await (const { value } of this.#pages(`/v2/${repository}/tags/list?n=${PAGE}`, {
      what,
      signal,
      accept: [200],
    })) {
      const page: unknown = isRecord(value) ? (value['tags'] ?? []) : undefined // null is what some registries say for none
      if (!Array.isArray(page))
        throw new RegistryError('BAD_RESPONSE', `cannot ${what}: the answer has no list of tags`)
      for (const tag of page) {
        if (typeof tag !== 'string' || !isTag(tag))
          throw new RegistryError('BAD_RESPONSE', `cannot ${what}: ${JSON.stringify(tag).slice(0, 100)} is no tag`)
        tags.push(tag)
      }
      if (tags.length > MAX_ENTRIES) throw new RegistryError('BAD_RESPONSE', `cannot ${what}: more than ${MAX_ENTRIES}`)
    }
    return tags
  }

  /** No further page is asked for once `atMost` are there. */
  async referrers(
    digest: Digest,
    { artifactType, atMost = MAX_ENTRIES }: { readonly artifactType?: string; readonly atMost?: number },
    signal: AbortSignal,
  ): Promise<Descriptor[]> {
    const { repository } = this.#options
    const what = `list the referrers of ${digest} in ${repository}`
    const filter = artifactType === undefined ? '' : `?artifactType=${encodeURIComponent(artifactType)}`
    const found: Descriptor[] = []
    for await (const { value, status } of this.#pages(`/v2/${repository}/referrers/${digest}${filter}`, {
      what,
      signal,
      accept: [200, ...NO_REFERRERS],
    })) {
      if (status !== 200)
        return filtered((await this.#tagged(digest, signal))?.manifests ?? [], artifactType).slice(0, atMost)
      const manifests: unknown = isRecord(value) ? value['manifests'] : undefined
      if (!Array.isArray(manifests)) throw new RegistryError('BAD_RESPONSE', `cannot ${what}: the answer is no index`)
      for (const [index, entry] of manifests.entries()) found.push(checkDescriptor(entry, `manifests[${index}]`))
      if (found.length > MAX_ENTRIES)
        throw new RegistryError('BAD_RESPONSE', `cannot ${what}: more than ${MAX_ENTRIES}`)
      if (found.length >= atMost) break
    }
    return filtered(found, artifactType).slice(0, atMost)
  }

  /** For registries without the referrers API the client keeps the index itself, under a tag (distribution specification, "Referrers Tag Schema"). */
  async addReferrer(pushed: Descriptor, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const parsed = parseManifest(bytes, pushed.mediaType)
    const { subject, artifactType, annotations } = parsed.kind === 'image' ? parsed.image : parsed.index
    if (subject === undefined || subject === null) return
    const type = artifactType ?? (parsed.kind === 'image' ? parsed.image.config.mediaType : undefined)
    const entry = {
      ...pushed,
      ...(type === undefined ? {} : { artifactType: type }),
      ...(annotations === undefined ? {} : { annotations }),
    }
    const existing = (await this.#tagged(subject.digest, signal))?.manifests ?? []
    if (existing.some(({ digest }) => digest === pushed.digest)) return
    const index = { schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests: [...existing, entry] }
    const encoded = Buffer.from(JSON.stringify(index))
    await this.#options.manifests.put(
      { ref: referrersTag(subject.digest), bytes: encoded, mediaType: MEDIA_TYPES.ociIndex },
      signal,
    )
  }

  async #tagged(digest: Digest, signal: AbortSignal): Promise<ImageIndex | undefined> {
    let manifest: Manifest
    try {
      manifest = await this.#options.manifests.get(referrersTag(digest), [MEDIA_TYPES.ociIndex], signal)
    } catch (error) {
      if (error instanceof RegistryError && error.code === 'NOT_FOUND') return undefined // nobody refers to it yet
      throw error
    }
    return manifest.parsed.kind === 'index' ? manifest.parsed.index : undefined
  }

  /** Follows `Link: <…>; rel="next"` on the same registry. */
  async *#pages(
    first: string,
    context: { what: string; signal: AbortSignal; accept: readonly number[] },
  ): AsyncGenerator<{ value: unknown; status: number }> {
    const { transport, endpoint, repository } = this.#options
    let to: string | URL = first
    const seen = new Set<string>()
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const scopes = [`repository:${repository}:pull`]
      const asked: RegistryAnswer = await transport.send({
        ...context,
        endpoint,
        method: 'GET',
        to,
        scopes,
        headers: { accept: `${MEDIA_TYPES.ociIndex}, application/json` },
      })
      if (asked.answer.status !== 200) {
        asked.answer.discard()
        yield { value: undefined, status: asked.answer.status }
        return
      }
      yield { value: parseJson(await asked.answer.bytes(MAX_MANIFEST_BYTES), context.what), status: 200 }
      const next = nextPage(asked, context.what)
      if (next === undefined) return
      if (seen.has(next.href))
        throw new RegistryError('BAD_RESPONSE', `cannot ${context.what}: the pages go round in a circle`)
      seen.add(next.href)
      to = next
    }
    throw new RegistryError('BAD_RESPONSE', `cannot ${context.what}: more than ${MAX_PAGES} pages`)
  }
}

function nextPage(asked: RegistryAnswer, what: string): URL | undefined {
  const { link } = asked.answer.headers
  const text = typeof link === 'string' ? link : (link ?? []).join(', ')
  const target = /<([^<>]*)>\s*;[^,]*\brel="?next"?/i.exec(text)?.[1]
  if (target === undefined) return undefined
  const url = URL.parse(target, asked.url.href)
  if (url === null || url.origin !== asked.url.origin)
    throw new RegistryError('BAD_RESPONSE', `cannot ${what}: the next page is at another server`)
  return url
}

function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch (error) {
    throw new RegistryError('BAD_RESPONSE', `cannot ${what}: the answer is not JSON`, { cause: error })
  }
}

function filtered(entries: readonly Descriptor[], artifactType: string | undefined): Descriptor[] {
  return entries.filter((entry) => artifactType === undefined || entry.artifactType === artifactType)
}

/** `sha256:abc…` is kept under the tag `sha256-abc…`. */
export function referrersTag(digest: Digest): string {
  return `${digestAlgorithm(digest)}-${digestHex(digest)}`
}
