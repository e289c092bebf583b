/** What the tests of this room share: servers on loopback with a store of their own, patterned content, a clock that the test turns. */
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ClientOptions, RepositoryOptions } from './client.ts'
import { RegistryClient } from './client.ts'
import { anonymous } from './credentials.ts'
import type { Digest } from './digest.ts'
import { digestOf } from './digest.ts'
import { MEDIA_TYPES } from './manifest.ts'
import type { BlobSource, Repository } from './repository.ts'
import { parseReference } from './reference.ts'
import type { Clock } from './retry.ts'
import type { RegistryServer, RegistryServerOptions } from './server/registry-server.ts'
import { startRegistry } from './server/registry-server.ts'

export interface TestRegistry {
  readonly server: RegistryServer
  readonly root: string
  [Symbol.asyncDispose](): Promise<void>
}

export async function temporaryFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'registry-test-'))
}

export async function testRegistry(options: Partial<RegistryServerOptions> = {}): Promise<TestRegistry> {
  const root = await temporaryFolder()
  const server = await startRegistry({ root, host: '127.0.0.1', port: 0, ...options })
  return {
    server,
    root,
    async [Symbol.asyncDispose]() {
      await server.close()
      await rm(root, { recursive: true, force: true })
    },
  }
}

export interface TestClient {
  readonly client: RegistryClient
  readonly repository: Repository
  [Symbol.asyncDispose](): Promise<void>
}

/** A client of `host` that waits no time between tries. */
export function testClient(
  host: string,
  options: Partial<ClientOptions> = {},
  more: RepositoryOptions & { name?: string } = {},
): TestClient {
  const client = new RegistryClient({
    credentials: anonymous(),
    plainHttp: 'always',
    retry: { attempts: 3 },
    clock: hurriedClock(),
    ...options,
  })
  const repository = client.repository(parseReference(`${host}/${more.name ?? 'test/image'}:latest`), more)
  return { client, repository, [Symbol.asyncDispose]: () => client.close() }
}

/** A clock whose sleeps are noted and take no time, but move it. */
export function hurriedClock(): Clock & { readonly sleeps: number[]; advance(ms: number): void } {
  const sleeps: number[] = []
  let shift = 0
  return {
    sleeps,
    now: () => Date.now() + shift,
    advance: (ms) => {
      shift += ms
    },
    async sleep(ms, signal) {
      signal.throwIfAborted()
      sleeps.push(ms)
      shift += ms
    },
    random: () => 0.5,
  }
}

/** Bytes that differ at every place that a wrong offset could hit. */
export function pattern(length: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = seed >>> 0 || 1
  for (let at = 0; at < length; at += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes[at] = state >>> 24
  }
  return bytes
}

export function blobOf(bytes: Uint8Array, pieceBytes = 65_536): BlobSource {
  return {
    digest: digestOf(bytes),
    size: bytes.length,
    async *open() {
      for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes)
    },
  }
}

export async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts)
}

/** Pushes a blob past all faults and counters. */
export async function seed(server: RegistryServer, bytes: Uint8Array, name = 'test/image'): Promise<Digest> {
  await using pusher = testClient(server.host, {}, { name })
  await pusher.repository.uploadBlob(blobOf(bytes))
  server.resetCounters()
  return digestOf(bytes)
}

/** A manifest with one layer, its blobs pushed. */
export async function pushImage(
  repository: Repository,
  tag: string,
  extra: Record<string, unknown> = {},
): Promise<{ digest: Digest; bytes: Buffer }> {
  const config = Buffer.from('{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}')
  const layer = pattern(1000, 7)
  for (const bytes of [config, layer]) await repository.uploadBlob(blobOf(bytes))
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, digest: digestOf(config), size: config.length },
    layers: [{ mediaType: MEDIA_TYPES.ociLayer, digest: digestOf(layer), size: layer.length }],
    ...extra,
  }
  const bytes = Buffer.from(JSON.stringify(manifest))
  const { digest } = await repository.pushManifest(tag === '' ? digestOf(bytes) : tag, bytes, MEDIA_TYPES.ociManifest)
  return { digest, bytes }
}

/** File descriptors that are open in this process. */
export async function openDescriptors(): Promise<number> {
  return (await readdir('/proc/self/fd')).length
}
