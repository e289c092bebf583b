/** What the tests of this room share: a registry, real images made of tars, images of the original tools where they are found. */
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import type {
  Descriptor,
  Digest,
  ImageManifest,
  RegistryServer,
  RegistryServerOptions,
  Repository,
} from '../registry/index.ts'
import { anonymous, digestOf, MEDIA_TYPES, parseReference, RegistryClient, startRegistry } from '../registry/index.ts'
import { type TarHeader, TarWriter } from '../tar/index.ts'
import type { ConversionRequest, ConvertedImage } from './conversion.ts'
import { convertImage } from './convert-image.ts'
import type { ConvertedLayer } from './layer.ts'
import { PushRetry } from './push-retry.ts'

/** Images of the original tools, as an OCI layout with what was observed of them. */
export const FIXTURES = join(import.meta.dirname, '../../../shared/fixtures/oci')
export const skipWithoutFixtures = existsSync(join(FIXTURES, 'index.json'))
  ? false
  : "the original tools' images are not here (../shared/fixtures/oci)"

export interface TestWorld extends AsyncDisposable {
  readonly server: RegistryServer
  readonly client: RegistryClient
  /** A folder of the test. */
  readonly folder: string
  repository(name: string): Repository
}

/** An embedded registry, a client that waits no time between tries, and a folder. All is gone afterwards. */
export async function testWorld(options: Partial<RegistryServerOptions> = {}): Promise<TestWorld> {
  const folder = await mkdtemp(join(tmpdir(), 'convert-test-'))
  const server = await startRegistry({ root: join(folder, 'registry'), host: '127.0.0.1', port: 0, ...options })
  const client = new RegistryClient({ credentials: anonymous(), retry: { attempts: 5, baseDelayMs: 1, maxDelayMs: 2 } })
  return {
    server,
    client,
    folder,
    repository: (name) => client.repository(parseReference(`${server.host}/${name}`)),
    async [Symbol.asyncDispose]() {
      await client.close()
      await server.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** An entry of a layer; text stands for itself in paths, links, contents and attributes. */
export type EntryText = Omit<Partial<TarHeader>, 'path' | 'link' | 'xattrs' | 'size'> & {
  readonly path: string
  readonly type: TarHeader['type']
  readonly link?: string
  readonly content?: string | Uint8Array
  readonly xattrs?: Readonly<Record<string, string>>
}

export async function tarOf(entries: readonly EntryText[]): Promise<Buffer> {
  const parts: Buffer[] = []
  const tar = new TarWriter((bytes) => void parts.push(Buffer.from(bytes)))
  for (const { path, link, content = '', xattrs = {}, ...rest } of entries) {
    const bytes = Buffer.from(content)
    const attributes = Object.entries(xattrs).map(([name, value]) => ({
      name: Buffer.from(name),
      value: Buffer.from(value),
    }))
    await tar.add(
      {
        mode: rest.type === 'directory' ? 0o755 : 0o644,
        ...rest,
        path: Buffer.from(path),
        link: Buffer.from(link ?? ''),
        xattrs: attributes,
        size: bytes.length,
      },
      rest.type === 'file' ? [bytes] : [],
    )
  }
  await tar.finish()
  return Buffer.concat(parts)
}

export async function push(repository: Repository, bytes: Uint8Array): Promise<{ digest: Digest; size: number }> {
  const digest = digestOf(bytes)
  await repository.uploadBlob({ digest, size: bytes.length, open: () => once(bytes) })
  return { digest, size: bytes.length }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

export interface ImageOptions {
  readonly compression?: 'gzip' | 'zstd' | 'none'
  readonly architecture?: string
  readonly docker?: boolean
  /** Instead of the layers' own. */
  readonly diffIds?: readonly string[]
}

const LAYER_TYPE = {
  gzip: MEDIA_TYPES.ociLayerGzip,
  zstd: MEDIA_TYPES.ociLayerZstd,
  none: MEDIA_TYPES.ociLayer,
} as const

/** Pushes an image of these layers by its digest, and under the repository's tag when it has one. */
export async function pushImage(
  repository: Repository,
  layers: readonly Buffer[],
  options: ImageOptions = {},
): Promise<Descriptor> {
  const { compression = 'gzip', architecture = 'amd64', docker = false } = options
  const descriptors: Descriptor[] = []
  for (const tar of layers) {
    const stored =
      compression === 'gzip' ? gzipSync(tar, { level: 1 }) : compression === 'zstd' ? zstdCompressSync(tar) : tar
    descriptors.push({
      mediaType: docker ? MEDIA_TYPES.dockerLayerGzip : LAYER_TYPE[compression],
      ...(await push(repository, stored)),
    })
  }
  const config = await push(
    repository,
    Buffer.from(
      JSON.stringify({
        architecture,
        os: 'linux',
        config: { Cmd: ['/bin/app', '--x=<&>'], Env: ['PATH=/bin'], Healthcheck: { Test: ['NONE'] } },
        rootfs: { type: 'layers', diff_ids: options.diffIds ?? layers.map((tar) => digestOf(tar)) },
        history: layers.map((_, index) => ({ created_by: `layer ${index}` })),
      }),
    ),
  )
  const mediaType = docker ? MEDIA_TYPES.dockerManifest : MEDIA_TYPES.ociManifest
  const manifest = {
    schemaVersion: 2,
    mediaType,
    config: { mediaType: docker ? MEDIA_TYPES.dockerConfig : MEDIA_TYPES.ociConfig, ...config },
    layers: descriptors,
  }
  return await repository.pushManifest(
    repository.reference.tag ?? digestOf(Buffer.from(JSON.stringify(manifest))),
    Buffer.from(JSON.stringify(manifest)),
    mediaType,
  )
}

/** Layers with what images are made of: hard links, xattrs, devices, whiteouts, opaque directories, replaced files, odd names. */
export async function sampleLayers(): Promise<Buffer[]> {
  const large = Buffer.alloc(2_500_000, 'a large file that needs three chunks; ')
  const lower = await tarOf([
    { path: 'bin/', type: 'directory', mtimeSeconds: 1_600_000_000 },
    { path: 'bin/app', type: 'file', mode: 0o4755, content: large, mtimeSeconds: 1_600_000_001 },
    { path: 'bin/again', type: 'hardlink', link: 'bin/app' },
    { path: 'bin/sh', type: 'symlink', mode: 0o777, link: 'app' },
    { path: 'etc/', type: 'directory', uid: 7, gid: 8 },
    {
      path: 'etc/passwd',
      type: 'file',
      content: 'root:x:0:0\n',
      xattrs: { 'user.note': 'kept', 'trusted.secret': 'too' },
    },
    { path: 'etc/gone', type: 'file', content: 'deleted above' },
    { path: 'etc/replaced', type: 'file', content: 'old' },
    { path: 'opaque/', type: 'directory' },
    { path: 'opaque/below', type: 'file', content: 'hidden' },
    { path: 'again/', type: 'directory' },
    { path: 'again/below', type: 'file', content: 'the directory is deleted and made anew' },
    { path: 'dev/', type: 'directory' },
    { path: 'dev/null', type: 'char', devMajor: 1, devMinor: 3, mode: 0o666 },
    { path: 'dev/pipe', type: 'fifo' },
    { path: 'nämé\n', type: 'file', content: 'x' },
    { path: 'empty', type: 'file' },
  ])
  const upper = await tarOf([
    { path: 'etc/', type: 'directory', uid: 7, gid: 8 },
    { path: 'etc/.wh.gone', type: 'file' },
    { path: 'etc/replaced', type: 'file', content: 'new', mode: 0o600 },
    { path: 'opaque/', type: 'directory', mode: 0o700 },
    { path: 'opaque/.wh..wh..opq', type: 'file' },
    { path: 'opaque/above', type: 'file', content: 'shown' },
    { path: '.wh.again', type: 'file' },
    { path: 'again/', type: 'directory' },
    { path: 'again/above', type: 'file', content: 'only this' },
  ])
  return [lower, upper, await tarOf([{ path: 'empty-directory/', type: 'directory' }])]
}

/** Converts `name:plain` to `name:nydus`, unless said otherwise. */
export async function convert(
  world: TestWorld,
  name: string,
  changes: Partial<ConversionRequest> = {},
  signal: AbortSignal = new AbortController().signal,
): Promise<ConvertedImage & { layers: ConvertedLayer[] }> {
  const layers: ConvertedLayer[] = []
  const converted = await convertImage(
    {
      source: world.repository(`${name}:plain`),
      target: world.repository(`${name}:nydus`),
      platforms: [{ os: 'linux', architecture: 'amd64' }],
      chunkSize: 0x10_0000,
      compression: 'zstd',
      prefetchPaths: ['/'],
      dictionary: undefined,
      toOci: false,
      withReferrer: false,
      isMerged: false,
      graphDriverTag: undefined,
      builderVersion: 'v2.4.4-8-g34e6071e',
      workDirectory: join(world.folder, 'work'),
      retry: new PushRetry({ count: 0, delayMs: 1, onRetry: () => undefined }),
      ...changes,
    },
    { onSource: () => undefined, onRead: () => undefined, onLayer: (_, layer) => void layers.push(layer) },
    signal,
  )
  return { ...converted, layers }
}

/** Files below a folder, which may be absent. */
export async function filesIn(folder: string): Promise<string[]> {
  return existsSync(folder) ? (await readdir(folder, { recursive: true })).sort() : []
}

/** A blob of the original tools' images. */
export async function fixtureBlob(digest: string): Promise<Buffer> {
  return await readFile(join(FIXTURES, 'blobs/sha256', digest.slice('sha256:'.length)))
}

/** The manifest of an image of the original tools, by its name there. */
export async function fixtureManifest(name: string): Promise<{
  readonly digest: Digest
  readonly mediaType: string
  readonly bytes: Buffer
  readonly manifest: ImageManifest
}> {
  const index = JSON.parse(await readFile(join(FIXTURES, 'index.json'), 'utf8')) as { manifests: Descriptor[] }
  const entry = index.manifests.find(({ annotations }) => annotations?.['org.opencontainers.image.ref.name'] === name)
  if (entry === undefined) throw new Error(`no fixture ${name}`)
  const bytes = await fixtureBlob(entry.digest)
  return {
    digest: entry.digest,
    mediaType: entry.mediaType,
    bytes,
    manifest: JSON.parse(bytes.toString()) as ImageManifest,
  }
}

/** Pushes an image of the original tools as it is. */
export async function pushFixture(repository: Repository, name: string): Promise<void> {
  const { bytes, mediaType, manifest } = await fixtureManifest(name)
  const images = 'manifests' in manifest ? (manifest.manifests as Descriptor[]) : []
  for (const { digest, mediaType: type } of images) {
    const inner = await fixtureBlob(digest)
    await pushParts(repository, JSON.parse(inner.toString()) as ImageManifest)
    await repository.pushManifest(digest, inner, type)
  }
  if (images.length === 0) await pushParts(repository, manifest)
  await repository.pushManifest(repository.reference.tag ?? 'latest', bytes, mediaType)
}

async function pushParts(repository: Repository, { config, layers }: ImageManifest): Promise<void> {
  for (const { digest } of [config, ...layers]) await push(repository, await fixtureBlob(digest))
}
