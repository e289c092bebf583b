import type { Digest } from '../digest.ts'
import { digestAlgorithm, digestOf } from '../digest.ts'
import { RegistryError } from '../errors.ts'
import type { ParsedManifest } from '../manifest.ts'
import { parseManifest } from '../manifest.ts'
import { notAllowed, requestDigest } from './blob-routes.ts'
import type { Exchange } from './exchange.ts'
import { SpecError } from './spec-error.ts'
import { checkName } from './store.ts'
import type { Store } from './store.ts'

/** The specification's least upper limit. */
const MAX_BYTES = 4 << 20
/** Layers that registries are not meant to have. */
const FOREIGN = /nondistributable|foreign/

/** `{name}/manifests/{tag or digest}`. */
export async function serveManifest(exchange: Exchange, store: Store, name: string, ref: string): Promise<void> {
  checkName(name)
  if (ref.includes(':')) requestDigest(ref)
  switch (exchange.method) {
    case 'GET':
    case 'HEAD':
      return getManifest(exchange, store, name, ref)
    case 'PUT':
      return putManifest(exchange, store, name, ref)
    case 'DELETE':
      return deleteManifest(exchange, store, name, ref)
    default:
      throw notAllowed('GET, HEAD, PUT, DELETE')
  }
}

async function getManifest(exchange: Exchange, store: Store, name: string, ref: string): Promise<void> {
  const manifest = await store.manifest(name, ref)
  if (manifest === undefined) throw unknownManifest(name, ref)
  const { digest, mediaType, bytes } = manifest
  const headers = {
    'content-type': mediaType,
    'content-length': String(bytes.length),
    'docker-content-digest': digest,
    etag: `"${digest}"`,
  }
  return exchange.send(200, headers, { bytes })
}

async function putManifest(exchange: Exchange, store: Store, name: string, ref: string): Promise<void> {
  const bytes = await exchange.wholeBody(MAX_BYTES)
  const byDigest = ref.includes(':') ? requestDigest(ref) : undefined
  const digest = digestOf(bytes, byDigest === undefined ? 'sha256' : digestAlgorithm(byDigest))
  if (byDigest !== undefined && byDigest !== digest)
    throw new SpecError('DIGEST_INVALID', `the bytes have digest ${digest}, not ${byDigest}`)
  const mediaType = (exchange.header('content-type') ?? '').split(';', 1)[0]?.trim() ?? ''
  const parsed = parsePushed(bytes, mediaType)
  await checkReferences(store, name, parsed)
  const subject = (parsed.kind === 'image' ? parsed.image : parsed.index).subject?.digest
  await store.putManifest(
    name,
    { digest, mediaType, bytes },
    { tag: byDigest === undefined ? ref : undefined, subject },
  )
  const headers = { location: `/v2/${name}/manifests/${digest}`, 'docker-content-digest': digest }
  return exchange.empty(201, subject === undefined ? headers : { ...headers, 'oci-subject': subject })
}

async function deleteManifest(exchange: Exchange, store: Store, name: string, ref: string): Promise<void> {
  if (!ref.includes(':')) {
    if (!(await store.deleteTag(name, ref))) throw unknownManifest(name, ref)
    return exchange.empty(202)
  }
  const manifest = await store.manifest(name, ref)
  if (manifest === undefined) throw unknownManifest(name, ref)
  await store.deleteManifest(name, manifest.digest, subjectOf(parseManifest(manifest.bytes, manifest.mediaType)))
  return exchange.empty(202)
}

function parsePushed(bytes: Uint8Array, mediaType: string): ParsedManifest {
  let parsed: ParsedManifest
  try {
    parsed = parseManifest(bytes, mediaType)
  } catch (error) {
    if (error instanceof RegistryError) throw new SpecError('MANIFEST_INVALID', error.message, { cause: error })
    throw error
  }
  const own = parsed.kind === 'image' ? parsed.image.mediaType : parsed.index.mediaType
  if (own !== undefined && own !== mediaType)
    throw new SpecError('MANIFEST_INVALID', `mediaType is ${own}, Content-Type ${mediaType || 'absent'}`)
  return parsed
}

function subjectOf(parsed: ParsedManifest): Digest | undefined {
  return (parsed.kind === 'image' ? parsed.image : parsed.index).subject?.digest
}

/** All that a manifest names must be in the repository, except its subject and foreign layers. */
async function checkReferences(store: Store, name: string, parsed: ParsedManifest): Promise<void> {
  if (parsed.kind === 'index') {
    for (const { digest } of parsed.index.manifests) {
      if ((await store.manifest(name, digest)) === undefined)
        throw new SpecError('MANIFEST_BLOB_UNKNOWN', `${name} has no manifest ${digest}`)
    }
    return
  }
  for (const { digest, mediaType } of [parsed.image.config, ...parsed.image.layers]) {
    if (FOREIGN.test(mediaType)) continue
    if ((await store.blob(name, digest)) === undefined)
      throw new SpecError('MANIFEST_BLOB_UNKNOWN', `${name} has no blob ${digest}`)
  }
}

function unknownManifest(name: string, ref: string): SpecError {
  return new SpecError('MANIFEST_UNKNOWN', `${name} has no manifest ${ref}`)
}
