import { contentLength } from './content-range.ts'
import type { Digest } from './digest.ts'
import { digestAlgorithm, digestOf, parseDigest } from './digest.ts'
import { RegistryError } from './errors.ts'
import type { HttpHeaders } from './http.ts'
import type { Descriptor } from './manifest.ts'
import { MANIFEST_TYPES, MAX_MANIFEST_BYTES, parseManifest } from './manifest.ts'
import { isTag } from './reference.ts'
import type { Manifest } from './repository.ts'
import type { Endpoint } from './endpoint.ts'
import type { RegistryAnswer, Transport } from './transport.ts'

export interface ManifestsOptions {
  readonly transport: Transport
  readonly endpoint: Endpoint
  readonly repository: string
}

export interface PutManifest {
  readonly ref: string
  readonly bytes: Uint8Array
  readonly mediaType: string
}

/** Manifests of one repository by tag and digest. */
export class Manifests {
  readonly #options: ManifestsOptions

  constructor(options: ManifestsOptions) {
    this.#options = options
  }

  async get(ref: string, accept: readonly string[] | undefined, signal: AbortSignal): Promise<Manifest> {
    const what = `read manifest ${ref} of ${this.#options.repository}`
    const { answer } = await this.#ask('GET', ref, { what, accept, signal })
    let bytes: Uint8Array
    try {
      bytes = await answer.bytes(MAX_MANIFEST_BYTES)
    } finally {
      answer.discard()
    }
    const wanted = checkRef(ref) ?? headerDigest(answer.headers, what)
    const digest = digestOf(bytes, wanted === undefined ? 'sha256' : digestAlgorithm(wanted))
    if (wanted !== undefined && digest !== wanted) {
      throw new RegistryError(
        'DIGEST_MISMATCH',
        `cannot ${what}: its ${bytes.length} bytes have digest ${digest}, wanted ${wanted}`,
      )
    }
    const answered = headerText(answer.headers, 'content-type')
    const parsed = parseManifest(bytes, answered)
    const own = parsed.kind === 'image' ? parsed.image.mediaType : parsed.index.mediaType
    return { descriptor: { mediaType: own ?? mediaTypeOf(answered), digest, size: bytes.length }, bytes, parsed }
  }

  /** By HEAD; by GET where that is refused or says too little. */
  async resolve(ref: string, accept: readonly string[] | undefined, signal: AbortSignal): Promise<Descriptor> {
    const what = `resolve ${ref} of ${this.#options.repository}`
    try {
      const { answer } = await this.#ask('HEAD', ref, { what, accept, signal })
      answer.discard()
      const digest = headerDigest(answer.headers, what)
      const size = contentLength(answer.headers, what)
      const mediaType = mediaTypeOf(headerText(answer.headers, 'content-type'))
      const wanted = checkRef(ref)
      if (
        wanted !== undefined &&
        digest !== undefined &&
        wanted !== digest &&
        digestAlgorithm(wanted) === digestAlgorithm(digest)
      ) {
        throw new RegistryError('DIGEST_MISMATCH', `cannot ${what}: the registry answered with ${digest}`)
      }
      const found = wanted ?? digest
      if (found !== undefined && size !== undefined && MANIFEST_TYPES.includes(mediaType))
        return { mediaType, digest: found, size }
    } catch (error) {
      if (!(error instanceof RegistryError) || error.code !== 'UNSUPPORTED') throw error
    }
    return (await this.get(ref, accept, signal)).descriptor
  }

  /** Tells whether the registry knows about the manifest's subject (it then lists it among the referrers). */
  async put(manifest: PutManifest, signal: AbortSignal): Promise<{ descriptor: Descriptor; subjectKnown: boolean }> {
    const { ref, bytes, mediaType } = manifest
    const what = `push manifest ${ref} to ${this.#options.repository}`
    const wanted = checkRef(ref)
    const digest = digestOf(bytes, wanted === undefined ? 'sha256' : digestAlgorithm(wanted))
    if (wanted !== undefined && wanted !== digest)
      throw new RegistryError('DIGEST_MISMATCH', `cannot ${what}: the bytes have digest ${digest}`)
    const { answer } = await this.#options.transport.send({
      ...this.#target(ref, 'pull,push'),
      method: 'PUT',
      what,
      accept: [200, 201, 202, 204],
      headers: { 'content-type': mediaType, 'content-length': String(bytes.length) },
      body: () => bytes,
      signal,
    })
    answer.discard()
    const answered = headerDigest(answer.headers, what)
    if (answered !== undefined && answered !== digest && digestAlgorithm(answered) === digestAlgorithm(digest)) {
      throw new RegistryError(
        'DIGEST_MISMATCH',
        `cannot ${what}: the registry took it as ${answered}, the bytes have ${digest}`,
      )
    }
    return {
      descriptor: { mediaType, digest, size: bytes.length },
      subjectKnown: answer.headers['oci-subject'] !== undefined,
    }
  }

  async delete(ref: string, signal: AbortSignal): Promise<void> {
    const what = `delete manifest ${ref} of ${this.#options.repository}`
    checkRef(ref)
    const { answer } = await this.#options.transport.send({
      ...this.#target(ref, 'pull,delete'),
      method: 'DELETE',
      what,
      accept: [200, 202, 204],
      signal,
    })
    answer.discard()
  }

  #ask(
    method: 'GET' | 'HEAD',
    ref: string,
    context: { what: string; accept: readonly string[] | undefined; signal: AbortSignal },
  ): Promise<RegistryAnswer> {
    checkRef(ref)
    const headers = { accept: (context.accept ?? MANIFEST_TYPES).join(', ') }
    return this.#options.transport.send({
      ...this.#target(ref, 'pull'),
      method,
      what: context.what,
      accept: [200],
      headers,
      signal: context.signal,
    })
  }

  #target(ref: string, actions: string): { endpoint: Endpoint; to: string; scopes: string[] } {
    const { endpoint, repository } = this.#options
    return { endpoint, to: `/v2/${repository}/manifests/${ref}`, scopes: [`repository:${repository}:${actions}`] }
  }
}

/** The digest when it is one; a tag gives undefined; anything else must not get into a URL. */
function checkRef(ref: string): Digest | undefined {
  if (ref.includes(':')) return parseDigest(ref)
  if (isTag(ref)) return undefined
  throw new RegistryError(
    'BAD_REFERENCE',
    `cannot use ${JSON.stringify(ref.slice(0, 200))}: it is neither a tag nor a digest`,
  )
}

function headerDigest(headers: HttpHeaders, what: string): Digest | undefined {
  const text = headerText(headers, 'docker-content-digest')
  if (text === '') return undefined
  try {
    return parseDigest(text)
  } catch (error) {
    throw new RegistryError('BAD_RESPONSE', `cannot ${what}: bad Docker-Content-Digest: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

function headerText(headers: HttpHeaders, name: string): string {
  const value = headers[name]
  return typeof value === 'string' ? value : ''
}

function mediaTypeOf(contentType: string): string {
  return (contentType.split(';', 1)[0] ?? '').trim()
}
