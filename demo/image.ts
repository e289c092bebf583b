/** Makes a real OCI image of planned layers: deterministic tars, gzip level 6, config and manifest, pushed to a registry. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, fstatSync, lstatSync, openSync, readlinkSync, readSync } from 'node:fs'
import { finished } from 'node:stream/promises'
import { createGzip, type Gzip } from 'node:zlib'
import pLimit from 'p-limit'
import {
  anonymous,
  type Descriptor,
  type Digest,
  digestOf,
  hostPlatform,
  MEDIA_TYPES,
  parseReference,
  RegistryClient,
  type Repository,
  sha256Digest,
} from '../src/registry/index.ts'
import { type TarHeader, TarWriter } from '../src/tar/index.ts'
import type { LayerEntry, LayerPlan } from './layers.ts'

export interface PushOptions {
  readonly layers: readonly LayerPlan[]
  /** `http://127.0.0.1:5000`. */
  readonly registry: string
  /** Default `demo/app:oci`. */
  readonly name?: string
  /** What the image runs; default the demo's server. */
  readonly entrypoint?: readonly string[]
  readonly signal?: AbortSignal
  /** Bytes of tar packed so far, and about how many there will be. */
  readonly onProgress?: (packedBytes: number, totalBytes: number) => void
}

/** Sizes in bytes. */
export interface PushedLayer {
  readonly name: string
  readonly digest: Digest
  readonly diffId: Digest
  readonly compressed: number
  readonly uncompressed: number
  readonly entries: number
}

export interface PushedImage {
  /** `HOST:PORT/demo/app:oci` */
  readonly reference: string
  readonly digest: Digest
  readonly compressed: number
  readonly uncompressed: number
  /** Files, links and deletions; directories are not counted. */
  readonly files: number
  readonly layers: readonly PushedLayer[]
}

export const DEMO_ENTRYPOINT: readonly string[] = ['/usr/local/bin/node', '/app/server.mjs']
export const DEMO_ENV: readonly string[] = [
  'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  'HOME=/root',
  'LANG=C.UTF-8',
]

/** The time of what has none of its own: the same plan gives the same image. */
const MADE_AT = Date.UTC(2026, 0, 1) / 1000
const BATCH_BYTES = 1 << 20
/** Layers at once: their packing waits for disk and registry in turn. */
const LAYERS_AT_ONCE = 4
const DIRECTORY_MODES: Readonly<Record<string, number>> = { tmp: 0o1777, root: 0o700 }

/** Packs and pushes. The same files give the same digests. Throws RegistryError, or what the file system says. */
export async function pushImage(options: PushOptions): Promise<PushedImage> {
  const { layers, signal = new AbortController().signal } = options
  const url = new URL(options.registry)
  const reference = `${url.host}/${options.name ?? 'demo/app:oci'}`
  const client = new RegistryClient({
    credentials: anonymous(),
    plainHttp: url.protocol === 'http:' ? 'always' : 'never',
  })
  try {
    const repository = client.repository(parseReference(reference))
    const plans = withParents(layers)
    const progress = progressOf(plans, options.onProgress)
    const limit = pLimit(LAYERS_AT_ONCE)
    const pushed = await Promise.all(plans.map((plan) => limit(() => pushLayer(plan, repository, progress, signal))))
    const config = await pushConfig(repository, pushed, options.entrypoint ?? DEMO_ENTRYPOINT, signal)
    const digest = await pushManifest(repository, config, pushed, signal)
    const sum = (of: (layer: PushedLayer) => number): number => pushed.reduce((total, layer) => total + of(layer), 0)
    return {
      reference,
      digest,
      layers: pushed,
      compressed: sum((layer) => layer.compressed),
      uncompressed: sum((layer) => layer.uncompressed),
      files: layers.flatMap(({ entries }) => entries).filter((entry) => !isDirectory(entry)).length,
    }
  } finally {
    await client.close()
  }
}

/**
 * Each layer with the directories above its entries before them, as real layers have them: without, whoever unpacks the layer alone would have to
 * guess their modes.
 */
function withParents(layers: readonly LayerPlan[]): LayerPlan[] {
  return layers.map(({ name, entries }) => {
    const known = new Set<string>()
    const all: LayerEntry[] = []
    for (const entry of entries) {
      const parts = entry.path.split('/')
      for (let depth = 1; depth < parts.length; depth++) {
        const path = parts.slice(0, depth).join('/')
        if (!known.has(path)) all.push({ path, directory: true })
        known.add(path)
      }
      if (isDirectory(entry) && known.has(entry.path)) continue
      known.add(entry.path)
      all.push(entry)
    }
    return { name, entries: all }
  })
}

function isDirectory(entry: LayerEntry): boolean {
  return 'directory' in entry || ('from' in entry && lstatSync(entry.from).isDirectory())
}

type Progress = (bytes: number) => void

function progressOf(plans: readonly LayerPlan[], onProgress: PushOptions['onProgress']): Progress {
  if (onProgress === undefined) return () => undefined
  const sizeOf = (entry: LayerEntry): number => 512 + ('from' in entry ? lstatSync(entry.from).size : 0)
  const total = plans.flatMap((plan) => plan.entries).reduce((sum, entry) => sum + sizeOf(entry), 0)
  let packed = 0
  return (bytes) => {
    packed += bytes
    onProgress(Math.min(packed, total), total)
  }
}

/** Tar, gzip and upload run at once; nothing of the layer is kept. */
async function pushLayer(
  plan: LayerPlan,
  repository: Repository,
  progress: Progress,
  signal: AbortSignal,
): Promise<PushedLayer> {
  const stop = new AbortController()
  const either = AbortSignal.any([signal, stop.signal])
  const gzip = createGzip({ level: 6, chunkSize: 256 * 1024 })
  const packing = packLayer(plan, new TarOutput(gzip, progress, either))
  const uploading = repository.uploadStream(gzip, { signal: either })
  try {
    const [tar, uploaded] = await Promise.all([packing, uploading])
    const { digest, size: compressed } = uploaded
    return { name: plan.name, digest, compressed, entries: plan.entries.length, ...tar }
  } catch (error) {
    stop.abort()
    gzip.destroy()
    await Promise.allSettled([packing, uploading]) // the first failure is the one that is thrown
    throw error
  }
}

/** Gathers the tar's many small pieces: each write to the compressor costs a trip to another thread. */
class TarOutput {
  size = 0
  readonly #hash = createHash('sha256')
  readonly #gzip: Gzip
  readonly #progress: Progress
  readonly #signal: AbortSignal
  #batch = Buffer.allocUnsafe(BATCH_BYTES)
  #used = 0

  constructor(gzip: Gzip, progress: Progress, signal: AbortSignal) {
    this.#gzip = gzip
    this.#progress = progress
    this.#signal = signal
  }

  readonly write = async (bytes: Uint8Array): Promise<void> => {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + BATCH_BYTES - this.#used)
      this.#batch.set(part, this.#used)
      this.#used += part.length
      at += part.length
      if (this.#used === BATCH_BYTES) await this.#flush()
    }
  }

  async end(): Promise<{ diffId: Digest; uncompressed: number }> {
    await this.#flush()
    this.#gzip.end()
    await finished(this.#gzip, { readable: false, signal: this.#signal })
    return { diffId: sha256Digest(this.#hash.digest('hex')), uncompressed: this.size }
  }

  async #flush(): Promise<void> {
    this.#signal.throwIfAborted()
    const bytes = this.#batch.subarray(0, this.#used)
    this.#batch = Buffer.allocUnsafe(BATCH_BYTES) // the compressor has the old one
    this.#used = 0
    this.#hash.update(bytes)
    this.size += bytes.length
    this.#progress(bytes.length)
    if (!this.#gzip.write(bytes)) await once(this.#gzip, 'drain', { signal: this.#signal })
  }
}

async function packLayer(plan: LayerPlan, output: TarOutput): Promise<{ diffId: Digest; uncompressed: number }> {
  const writer = new TarWriter(output.write)
  for (const entry of plan.entries) await addEntry(writer, entry)
  await writer.finish()
  return output.end()
}

async function addEntry(writer: TarWriter, entry: LayerEntry): Promise<void> {
  if ('directory' in entry) {
    const mode = DIRECTORY_MODES[entry.path] ?? 0o755
    return writer.add({ path: Buffer.from(`${entry.path}/`), type: 'directory', mode, mtimeSeconds: MADE_AT })
  }
  const header = { path: Buffer.from(entry.path), type: 'file', mode: 0o644, mtimeSeconds: MADE_AT } as const
  if ('deleted' in entry) return writer.add({ ...header, path: Buffer.from(whiteoutOf(entry.path)), size: 0 })
  if ('text' in entry) {
    const content = Buffer.from(entry.text)
    return writer.add({ ...header, size: content.length }, [content])
  }
  return addFromHost(writer, entry)
}

/** `a/b` → `a/.wh.b` (OCI image specification, "Whiteouts"). */
function whiteoutOf(path: string): string {
  const slash = path.lastIndexOf('/')
  return `${path.slice(0, slash + 1)}.wh.${path.slice(slash + 1)}`
}

async function addFromHost(writer: TarWriter, entry: { path: string; from: string }): Promise<void> {
  const info = lstatSync(entry.from)
  const shared = {
    path: Buffer.from(info.isDirectory() ? `${entry.path}/` : entry.path),
    mode: info.mode & 0o7777,
    // Whole seconds, as other builders write them: a fraction would cost a PAX header a file.
    mtimeSeconds: Math.floor(info.mtimeMs / 1000),
  }
  if (info.isDirectory()) return writer.add({ ...shared, type: 'directory' })
  if (info.isSymbolicLink())
    return writer.add({ ...shared, type: 'symlink', link: readlinkSync(entry.from, { encoding: 'buffer' }) })
  if (!info.isFile()) throw new Error(`cannot pack ${entry.from}: it is neither file nor directory nor link`)
  const file = openSync(entry.from, 'r')
  try {
    const { size } = fstatSync(file)
    const header: TarHeader = { ...shared, type: 'file', size }
    await writer.add(header, contentOf(file))
  } finally {
    closeSync(file)
  }
}

function* contentOf(file: number): Generator<Uint8Array> {
  const piece = Buffer.allocUnsafe(BATCH_BYTES)
  for (let got = readSync(file, piece); got > 0; got = readSync(file, piece)) yield piece.subarray(0, got)
}

async function pushConfig(
  repository: Repository,
  layers: readonly PushedLayer[],
  entrypoint: readonly string[],
  signal: AbortSignal,
): Promise<Descriptor> {
  const created = new Date(MADE_AT * 1000).toISOString()
  const config = {
    created,
    ...hostPlatform(),
    config: { Env: DEMO_ENV, Entrypoint: entrypoint, WorkingDir: '/app' },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    history: layers.map(({ name }) => ({ created, created_by: name })),
  }
  const bytes = Buffer.from(JSON.stringify(config))
  const digest = digestOf(bytes)
  const open = async function* (): AsyncGenerator<Uint8Array> {
    yield bytes
  }
  await repository.uploadBlob({ digest, size: bytes.length, open }, { signal })
  return { mediaType: MEDIA_TYPES.ociConfig, digest, size: bytes.length }
}

async function pushManifest(
  repository: Repository,
  config: Descriptor,
  layers: readonly PushedLayer[],
  signal: AbortSignal,
): Promise<Digest> {
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config,
    layers: layers.map(({ digest, compressed }) => ({ mediaType: MEDIA_TYPES.ociLayerGzip, digest, size: compressed })),
  }
  const bytes = Buffer.from(JSON.stringify(manifest))
  const { tag = 'latest' } = repository.reference
  return (await repository.pushManifest(tag, bytes, MEDIA_TYPES.ociManifest, { signal })).digest
}
