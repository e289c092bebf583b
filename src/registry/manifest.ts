import type { Digest } from './digest.ts'
import { parseDigest } from './digest.ts'
import { RegistryError } from './errors.ts'
import { isRecord } from './json.ts'

export const MEDIA_TYPES = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociEmpty: 'application/vnd.oci.empty.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  ociLayerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  ociLayerNondistributable: 'application/vnd.oci.image.layer.nondistributable.v1.tar',
  ociLayerNondistributableGzip: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
  ociLayerNydusBlob: 'application/vnd.oci.image.layer.nydus.blob.v1',
  dockerManifestList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  dockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  dockerLayerZstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
  dockerForeignLayerGzip: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
} as const

export interface Platform {
  readonly os: string
  readonly architecture: string
  readonly variant?: string
  readonly 'os.version'?: string
  readonly 'os.features'?: readonly string[]
}

export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly annotations?: Readonly<Record<string, string>>
  readonly platform?: Platform
  readonly artifactType?: string
  readonly urls?: readonly string[]
  readonly data?: string
}

export interface ImageManifest {
  readonly schemaVersion: 2
  readonly mediaType?: string
  readonly artifactType?: string
  readonly config: Descriptor
  readonly layers: readonly Descriptor[]
  readonly subject?: Descriptor
  readonly annotations?: Readonly<Record<string, string>>
}

export interface ImageIndex {
  readonly schemaVersion: 2
  readonly mediaType?: string
  readonly artifactType?: string
  readonly manifests: readonly Descriptor[]
  readonly subject?: Descriptor
  readonly annotations?: Readonly<Record<string, string>>
}

export interface ImageConfig {
  readonly os: string
  readonly architecture: string
  readonly variant?: string
  readonly created?: string
  readonly author?: string
  readonly config?: Readonly<Record<string, unknown>>
  readonly rootfs: { readonly type: 'layers'; readonly diff_ids: readonly Digest[] }
  readonly history?: readonly Readonly<Record<string, unknown>>[]
}

/** A manifest or index that was parsed and checked. */
export type ParsedManifest =
  | { readonly kind: 'image'; readonly image: ImageManifest }
  | { readonly kind: 'index'; readonly index: ImageIndex }

/** Registries are asked for these when the caller does not say: OCI first, so that a registry with both gives OCI. */
export const MANIFEST_TYPES: readonly string[] = [
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.ociManifest,
  MEDIA_TYPES.dockerManifestList,
  MEDIA_TYPES.dockerManifest,
]
/** The specification lets registries refuse more than 4 MiB; nothing real is larger. */
export const MAX_MANIFEST_BYTES = 8 << 20
const MAX_LAYERS = 1_000
const MAX_MANIFESTS = 10_000
const MAX_HISTORY = 10_000

/** Checks bytes from outside. `mediaType` is what the registry called them. Throws RegistryError 'BAD_MANIFEST' naming the field. */
export function parseManifest(bytes: Uint8Array, mediaType: string): ParsedManifest {
  const value = parseObject(bytes, 'manifest')
  if (value['schemaVersion'] !== 2)
    throw bad('manifest', 'schemaVersion', value['schemaVersion'], '2; push the image again with a current client')
  const type = manifestType(value, mediaType)
  if (type === MEDIA_TYPES.ociIndex || type === MEDIA_TYPES.dockerManifestList) {
    refuseField(value, 'layers', type)
    refuseField(value, 'config', type)
    checkDescriptors(value, 'manifests', MAX_MANIFESTS)
    checkCommon(value)
    return { kind: 'index', index: value as unknown as ImageIndex } // every field of the type was checked
  }
  // One document that is image and index at once is read differently by different clients (CVE-2021-41190).
  refuseField(value, 'manifests', type)
  checkDescriptor(value['config'], 'config')
  checkDescriptors(value, 'layers', MAX_LAYERS)
  checkCommon(value)
  return { kind: 'image', image: value as unknown as ImageManifest } // every field of the type was checked
}

/** Checks an image config from outside. Unknown fields are kept. Throws RegistryError 'BAD_MANIFEST' naming the field. */
export function parseImageConfig(bytes: Uint8Array): ImageConfig {
  const value = parseObject(bytes, 'image config')
  for (const field of ['os', 'architecture']) checkString(value[field], field)
  for (const field of ['variant', 'created', 'author']) if (value[field] !== undefined) checkString(value[field], field)
  if (value['config'] !== undefined && value['config'] !== null && !isRecord(value['config']))
    throw bad('image config', 'config', value['config'], 'an object')
  const rootfs = value['rootfs']
  if (!isRecord(rootfs) || rootfs['type'] !== 'layers')
    throw bad('image config', 'rootfs.type', isRecord(rootfs) ? rootfs['type'] : rootfs, '"layers"')
  const diffIds = checkList(rootfs['diff_ids'] ?? [], 'rootfs.diff_ids', MAX_LAYERS)
  for (const [index, diffId] of diffIds.entries()) checkDigest(diffId, `rootfs.diff_ids[${index}]`)
  const history = checkList(value['history'] ?? [], 'history', MAX_HISTORY)
  for (const [index, entry] of history.entries())
    if (!isRecord(entry)) throw bad('image config', `history[${index}]`, entry, 'an object')
  return { ...value, rootfs: { ...rootfs, diff_ids: diffIds } } as unknown as ImageConfig // every field of the type was checked
}

/** The media type that counts: the document's own if it has one, else the one of the answer. */
function manifestType(value: Readonly<Record<string, unknown>>, answered: string): string {
  const own = value['mediaType']
  const type = typeof own === 'string' && own !== '' ? own : (answered.split(';', 1)[0] ?? '').trim()
  if (MANIFEST_TYPES.includes(type)) return type
  if (own === undefined && Array.isArray(value['manifests'])) return MEDIA_TYPES.ociIndex
  if (own === undefined && Array.isArray(value['layers'])) return MEDIA_TYPES.ociManifest
  throw bad('manifest', 'mediaType', type, MANIFEST_TYPES.join(', '))
}

function parseObject(bytes: Uint8Array, what: string): Record<string, unknown> {
  if (bytes.length > MAX_MANIFEST_BYTES) {
    throw new RegistryError(
      'BAD_MANIFEST',
      `cannot use ${what}: ${bytes.length} bytes, at most ${MAX_MANIFEST_BYTES} are read`,
    )
  }
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw new RegistryError(
      'BAD_MANIFEST',
      `cannot use ${what}: it is not JSON (${(error as Error).message.slice(0, 120)})`,
      { cause: error },
    )
  }
  if (!isRecord(value)) throw bad(what, 'document', value, 'an object')
  return value
}

function checkCommon(value: Readonly<Record<string, unknown>>): void {
  if (value['subject'] !== undefined && value['subject'] !== null) checkDescriptor(value['subject'], 'subject')
  if (value['artifactType'] !== undefined) checkString(value['artifactType'], 'artifactType')
  checkAnnotations(value['annotations'], 'annotations')
}

function checkDescriptors(value: Readonly<Record<string, unknown>>, field: string, most: number): void {
  for (const [index, entry] of checkList(value[field], field, most).entries())
    checkDescriptor(entry, `${field}[${index}]`)
}

/** Checks one descriptor; also used for the entries of a referrers answer. */
export function checkDescriptor(value: unknown, field: string): Descriptor {
  if (!isRecord(value)) throw bad('manifest', field, value, 'a descriptor')
  checkString(value['mediaType'], `${field}.mediaType`)
  checkDigest(value['digest'], `${field}.digest`)
  const size = value['size']
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw bad('manifest', `${field}.size`, size, 'a whole number from 0 to 2^53 - 1')
  checkAnnotations(value['annotations'], `${field}.annotations`)
  if (value['artifactType'] !== undefined) checkString(value['artifactType'], `${field}.artifactType`)
  if (value['data'] !== undefined) checkString(value['data'], `${field}.data`)
  if (value['urls'] !== undefined && value['urls'] !== null) {
    for (const [index, url] of checkList(value['urls'], `${field}.urls`, MAX_LAYERS).entries())
      checkString(url, `${field}.urls[${index}]`)
  }
  if (value['platform'] !== undefined && value['platform'] !== null)
    checkPlatform(value['platform'], `${field}.platform`)
  return value as unknown as Descriptor // every field of the type was checked
}

function checkPlatform(value: unknown, field: string): void {
  if (!isRecord(value)) throw bad('manifest', field, value, 'an object')
  checkString(value['os'], `${field}.os`)
  checkString(value['architecture'], `${field}.architecture`)
  for (const name of ['variant', 'os.version'])
    if (value[name] !== undefined) checkString(value[name], `${field}.${name}`)
  if (value['os.features'] === undefined || value['os.features'] === null) return
  for (const feature of checkList(value['os.features'], `${field}.os.features`, MAX_LAYERS))
    checkString(feature, `${field}.os.features`)
}

function checkAnnotations(value: unknown, field: string): void {
  if (value === undefined || value === null) return
  if (!isRecord(value)) throw bad('manifest', field, value, 'an object of strings')
  for (const [name, text] of Object.entries(value)) checkString(text, `${field}.${name}`)
}

function checkList(value: unknown, field: string, most: number): unknown[] {
  if (!Array.isArray(value)) throw bad('manifest', field, value, 'a list')
  if (value.length > most) throw bad('manifest', field, `${value.length} entries`, `at most ${most}`)
  return value
}

function checkDigest(value: unknown, field: string): void {
  checkString(value, field)
  try {
    parseDigest(value as string) // checked in the line before
  } catch (error) {
    throw new RegistryError('BAD_MANIFEST', `cannot use manifest: ${field}: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

function checkString(value: unknown, field: string): void {
  if (typeof value !== 'string') throw bad('manifest', field, value, 'a text')
}

function refuseField(value: Readonly<Record<string, unknown>>, field: string, type: string): void {
  if (value[field] !== undefined) throw bad('manifest', field, 'present', `absent in ${type}`)
}

function bad(what: string, field: string, found: unknown, wanted: string): RegistryError {
  const shown = (JSON.stringify(found) ?? 'nothing').slice(0, 100)
  return new RegistryError('BAD_MANIFEST', `cannot use ${what}: ${field} is ${shown}, wanted ${wanted}`)
}
