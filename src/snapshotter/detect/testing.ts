/** What the tests of this folder share: a registry that wants a login, and images in it, made by hand. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import {
  type Descriptor,
  digestOf,
  fromPassword,
  MEDIA_TYPES,
  parseReference,
  RegistryClient,
  type RegistryServer,
  type RegistryServerOptions,
  type Repository,
  startRegistry,
} from '../../registry/index.ts'
import { type TarHeader, TarWriter } from '../../tar/index.ts'
import { type CredentialFinder, PasswordCredential } from '../credentials/index.ts'
import { CRI_IMAGE_REF, CRI_MANIFEST_DIGEST, NYDUS_BOOTSTRAP } from '../labels.ts'
import type { Labels } from '../snapshot.ts'
import { Detector, type DetectorParts } from './detector.ts'
import type { VisitParts } from './visit-repository.ts'

export const NEVER = new AbortController().signal

export interface World extends AsyncDisposable {
  readonly server: RegistryServer
  readonly repository: Repository
  readonly folder: string
  readonly lines: string[]
  /** For which references credentials were asked. */
  readonly asked: string[]
  readonly parts: VisitParts
  detector(change?: Partial<DetectorParts>): Detector
  /** Of a layer of the image. */
  labels(manifest: string, tag?: string): Labels
  /** A snapshot's directory with an empty `fs`. */
  snapshot(): Promise<string>
}

/** The registry wants a token for `me` with the password `secret`. */
export async function testWorld(options: Partial<RegistryServerOptions> = {}): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'detect-'))
  const auth = { kind: 'bearer', users: { me: 'secret' }, tokenLifeMs: 300_000 } as const
  const server = await startRegistry({ root: join(folder, 'registry'), host: '127.0.0.1', port: 0, auth, ...options })
  const client = new RegistryClient({
    credentials: fromPassword('me', 'secret'),
    plainHttp: 'fallback',
    skipVerify: true,
  })
  const [lines, asked]: [string[], string[]] = [[], []]
  const credentials: CredentialFinder = {
    find: async (reference) => {
      asked.push(reference)
      return new PasswordCredential('me', 'secret')
    },
  }
  const log = { debug: (line: string) => void lines.push(line), warn: (line: string) => void lines.push(line) }
  const parts = { credentials, access: { skipVerify: false, plainHttp: 'localhost' } } as const
  return {
    server,
    parts,
    folder,
    lines,
    asked,
    repository: client.repository(parseReference(`${server.host}/app:v1`)),
    detector: (change = {}) => new Detector({ ...parts, index: true, referrer: true, log, ...change }),
    labels: (manifest, tag = 'v1') =>
      new Map([
        [CRI_IMAGE_REF, `${server.host}/app:${tag}`],
        [CRI_MANIFEST_DIGEST, manifest],
      ]),
    snapshot: async () => {
      const path = await mkdtemp(join(folder, 'snapshot-'))
      await mkdir(join(path, 'fs'))
      return path
    },
    async [Symbol.asyncDispose]() {
      await client.close()
      await server.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

export type Entry = Partial<Omit<TarHeader, 'path' | 'type' | 'size'>> & {
  readonly path: string
  readonly type?: TarHeader['type']
  readonly content?: Uint8Array
}

export async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
  const parts: Buffer[] = []
  const tar = new TarWriter((bytes) => void parts.push(Buffer.from(bytes)))
  for (const { path, type = 'file', content = Buffer.alloc(0), ...rest } of entries) {
    const size = type === 'file' ? content.length : 0
    await tar.add({ mode: 0o644, ...rest, path: Buffer.from(path), type, size }, type === 'file' ? [content] : [])
  }
  await tar.finish()
  return Buffer.concat(parts)
}

/** Compressed by zstd in frames of 1000 bytes after a skippable one, as pzstd and builders of zstd:chunked do. */
export function inFrames(bytes: Uint8Array): Buffer {
  const frames = [Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])]
  for (let at = 0; at < bytes.length; at += 1000) frames.push(zstdCompressSync(bytes.subarray(at, at + 1000)))
  return Buffer.concat(frames)
}

export async function pushBlob(
  repository: Repository,
  bytes: Uint8Array,
): Promise<{ digest: Descriptor['digest']; size: number }> {
  const digest = digestOf(bytes)
  await repository.uploadBlob({
    digest,
    size: bytes.length,
    open: async function* () {
      yield bytes
    },
  })
  return { digest, size: bytes.length }
}

/** Pushes a manifest with these layers, and gives its descriptor. */
export async function pushManifest(
  repository: Repository,
  layers: readonly Omit<Descriptor, 'mediaType'>[],
  extra: Record<string, unknown> = {},
): Promise<Descriptor> {
  const config = Buffer.from('{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}')
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, ...(await pushBlob(repository, config)) },
    layers: layers.map((layer) => ({ mediaType: MEDIA_TYPES.ociLayerGzip, ...layer })),
    ...extra,
  }
  const bytes = Buffer.from(JSON.stringify(manifest))
  return await repository.pushManifest(digestOf(bytes), bytes, MEDIA_TYPES.ociManifest)
}

/** The plain image that clients pull. */
export async function pushPlain(repository: Repository, name = 'plain'): Promise<Descriptor> {
  return await pushManifest(repository, [
    await pushBlob(repository, gzipSync(await tarOf([{ path: name, content: Buffer.from(name) }]))),
  ])
}

/** A Nydus image with this bootstrap layer. */
export async function pushNydus(
  repository: Repository,
  layer: Uint8Array,
  extra: Record<string, unknown> = {},
): Promise<Descriptor> {
  const data = await pushBlob(repository, Buffer.from('data'))
  const bootstrap = { ...(await pushBlob(repository, layer)), annotations: { [NYDUS_BOOTSTRAP]: 'true' } }
  return await pushManifest(repository, [data, bootstrap], extra)
}

export async function pushIndex(
  repository: Repository,
  tag: string,
  manifests: readonly object[],
): Promise<Descriptor> {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }))
  return await repository.pushManifest(tag, bytes, MEDIA_TYPES.ociIndex)
}

/** Requests so far but those for tokens. */
export function requests(server: RegistryServer): number {
  return Object.entries(server.counters()).reduce(
    (sum, [route, count]) => sum + (route === 'token' ? 0 : count.requests),
    0,
  )
}
