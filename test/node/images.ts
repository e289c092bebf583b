/** The images of a test, each pushed when it is first wanted. */
import { execFileSync } from 'node:child_process'
import { createReadStream, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { packBootstrapLayer } from '../../src/convert/bootstrap-layer.ts'
import { type ConversionRequest, convertImage, PushRetry } from '../../src/convert/index.ts'
import { push } from '../../src/convert/testing.ts'
import {
  anonymous,
  type Descriptor,
  digestOf,
  fromPassword,
  hostPlatform,
  type Digest,
  MEDIA_TYPES,
  parseReference,
  RegistryClient,
  type Repository,
} from '../../src/registry/index.ts'
import { baseEntries, dataEntries, type DataFile, dataFiles, layerOf, pushRunnable, sumsOf } from './image-content.ts'
import { pushUnmarked } from './image-variants.ts'
import { bootstrapLayer, nydusLayer } from './nydus-layers.ts'
import { type Login, startTestRegistry, type TestRegistry } from './registry.ts'

export interface TestImage {
  readonly reference: string
  /** What `sha256sum /data/*` prints in a container of it. */
  readonly sums: string
}

/**
 * - `plain` ordinary layers; `v5`, `v6` Nydus images of that RAFS version; `zran` metadata beside an ordinary layer
 * - `mixed` ordinary layers above a Nydus image, as a commit or a build leaves them; `built` the same without annotations, as BuildKit leaves it
 * - `index` the plain and the Nydus image under one tag; `referred` a plain image whose Nydus image refers to it
 * - `deep-plain`, `deep` 120 layers
 * - `pause` for sandboxes; `other` a Nydus image that shares no layer with the others
 */
export type ImageName =
  | 'plain'
  | 'v5'
  | 'v6'
  | 'zran'
  | 'mixed'
  | 'built'
  | 'index'
  | 'referred'
  | 'deep-plain'
  | 'deep'
  | 'pause'
  | 'other'

const NYDUS_IMAGE = join(import.meta.dirname, '../../bin/nydus-image')
const MANY_LAYERS = 120

export class Images implements AsyncDisposable {
  readonly registry: TestRegistry
  readonly #client: RegistryClient
  readonly #folder: string
  readonly #made = new Map<ImageName, Promise<TestImage>>()

  private constructor(registry: TestRegistry, folder: string, login: Login | undefined) {
    this.registry = registry
    this.#folder = folder
    this.#client = new RegistryClient({
      credentials: login === undefined ? anonymous() : fromPassword(login.username, login.password),
      retry: { attempts: 5, baseDelayMs: 10, maxDelayMs: 200 },
    })
  }

  /** `folder` is the registry's store and a place to work in. With a login, nobody else may pull. */
  static async start(folder: string, login?: Login): Promise<Images> {
    mkdirSync(folder, { recursive: true })
    return new Images(await startTestRegistry(join(folder, 'registry'), login), folder, login)
  }

  /** Pushes it, unless it is there. */
  async image(name: ImageName): Promise<TestImage> {
    const made = this.#made.get(name) ?? this.#push(name)
    this.#made.set(name, made)
    return await made
  }

  /** A tag of the repository that all images are in. */
  repository(tag: string): Repository {
    return this.#client.repository(parseReference(this.reference(tag)))
  }

  reference(tag: string): string {
    return `${this.registry.host}/test/app:${tag}`
  }

  async #push(name: ImageName): Promise<TestImage> {
    const image = { reference: this.reference(name), sums: sumsOf(dataFiles()) }
    switch (name) {
      case 'plain':
        await pushRunnable(this.repository(name), [
          await layerOf(baseEntries()),
          await layerOf(dataEntries(dataFiles())),
        ])
        return image
      case 'v6':
        await this.#convert('plain', name, {})
        return image
      case 'index':
        await this.#convert('plain', name, { isMerged: true })
        return image
      case 'referred':
        await pushRunnable(this.repository(name), [await layerOf([...baseEntries(), ...dataEntries(dataFiles())])])
        await this.#convertTags(name, 'referred-nydus', { withReferrer: true })
        return image
      case 'v5':
        await this.#pushOneLayer(name, ['-t', 'tar-rafs', '--fs-version', '5'], 'plain')
        return image
      case 'zran':
        await this.#pushOneLayer(name, ['-t', 'targz-ref'], 'gzip')
        return image
      case 'mixed':
        return { ...image, sums: sumsOf(await this.#pushMixed()) }
      case 'built':
        image.sums = (await this.image('mixed')).sums
        await pushUnmarked(this.repository('mixed'), name)
        return image
      case 'deep-plain':
        return { ...image, sums: sumsOf(await this.#pushDeep()) }
      case 'deep':
        await this.#convert('deep-plain', name, {})
        return { ...image, sums: (await this.image('deep-plain')).sums }
      case 'pause':
        await this.#pushPause()
        return { ...image, sums: '' }
      case 'other': {
        const files = dataFiles(1000)
        const layer = await layerOf([...baseEntries(), ...dataEntries(files)])
        await pushRunnable(this.repository('other-plain'), [layer])
        await this.#convertTags('other-plain', name, {})
        return { ...image, sums: sumsOf(files) }
      }
      default: {
        const never: never = name
        throw new Error(`no image ${String(never)}`)
      }
    }
  }

  async #convert(from: ImageName, to: ImageName, changes: Partial<ConversionRequest>): Promise<void> {
    await this.image(from)
    await this.#convertTags(from, to, changes)
  }

  async #convertTags(from: string, to: string, changes: Partial<ConversionRequest>): Promise<void> {
    const request: ConversionRequest = {
      source: this.repository(from),
      target: this.repository(to),
      platforms: [hostPlatform()],
      chunkSize: 0x4_0000,
      compression: 'zstd',
      prefetchPaths: [],
      dictionary: undefined,
      toOci: true,
      withReferrer: false,
      isMerged: false,
      graphDriverTag: undefined,
      builderVersion: 'v2.4.4',
      workDirectory: join(this.#folder, `convert-${to}`),
      retry: new PushRetry({ count: 0, delayMs: 1, onRetry: () => undefined }),
      ...changes,
    }
    const watch = { onSource: () => undefined, onRead: () => undefined, onLayer: () => undefined }
    await convertImage(request, watch, AbortSignal.timeout(300_000))
  }

  /** All that the plain image has, in one layer that nydus-image makes with these options. */
  async #pushOneLayer(tag: string, options: readonly string[], compression: 'plain' | 'gzip'): Promise<void> {
    const work = mkdtempSync(join(this.#folder, 'layer-'))
    try {
      const tar = await layerOf([...baseEntries(), ...dataEntries(dataFiles())])
      const stored = compression === 'gzip' ? gzipSync(tar) : tar
      const [layer, bootstrap, blobs] = ['layer', 'bootstrap', 'blobs'].map((name) => join(work, name)) as [
        string,
        string,
        string,
      ]
      writeFileSync(layer, stored)
      mkdirSync(blobs)
      const created = ['create', '-l', 'error', ...options, '-B', bootstrap, '-D', blobs, '-J', join(work, 'output')]
      execFileSync(NYDUS_IMAGE, [...created, layer], { stdio: 'pipe' })
      const repository = this.repository(tag)
      const blob = await this.#pushBlob(repository, blobs)
      const reference = compression === 'gzip' ? digestOf(stored) : undefined
      if (reference !== undefined) await push(repository, stored)
      await this.#pushNydus(repository, [nydusLayer(blob, reference)], readFileSync(bootstrap), [])
    } finally {
      rmSync(work, { recursive: true, force: true })
    }
  }

  /** The only file of a folder. */
  async #pushBlob(repository: Repository, folder: string): Promise<{ digest: Digest; size: number }> {
    const list = execFileSync('ls', [folder], { encoding: 'utf8' }).trim().split('\n')
    if (list.length !== 1) throw new Error(`nydus-image left ${list.join(', ')}`)
    const path = join(folder, list[0] ?? '')
    const bytes = readFileSync(path)
    const blob = { digest: digestOf(bytes), size: bytes.length }
    await repository.uploadBlob({ ...blob, open: () => createReadStream(path) })
    return blob
  }

  async #pushNydus(
    repository: Repository,
    blobs: readonly Descriptor[],
    bootstrap: Uint8Array,
    above: readonly Buffer[],
  ): Promise<void> {
    const packed = await packBootstrapLayer(bootstrap, [])
    await push(repository, packed.bytes)
    const layers = [...blobs, bootstrapLayer(packed)]
    const diffIds: string[] = [...blobs.map(({ digest }) => digest), packed.diffId]
    for (const tar of above) {
      layers.push({ mediaType: MEDIA_TYPES.ociLayerGzip, ...(await push(repository, gzipSync(tar))) })
      diffIds.push(digestOf(tar))
    }
    await this.#pushManifest(repository, layers, diffIds)
  }

  async #pushManifest(
    repository: Repository,
    layers: readonly Descriptor[],
    diffIds: readonly string[],
    command: readonly string[] = ['/bin/sh'],
  ): Promise<void> {
    const config = { ...hostPlatform(), config: { Env: ['PATH=/bin'], Cmd: command } }
    const rootfs = { type: 'layers', diff_ids: diffIds }
    const stored = await push(repository, Buffer.from(JSON.stringify({ ...config, rootfs })))
    const manifest = {
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: { mediaType: MEDIA_TYPES.ociConfig, ...stored },
      layers,
    }
    const tag = repository.reference.tag ?? ''
    await repository.pushManifest(tag, Buffer.from(JSON.stringify(manifest)), MEDIA_TYPES.ociManifest)
  }

  /** The layers of `v6`, and two of ordinary files above: some are replaced, added and deleted. */
  async #pushMixed(): Promise<DataFile[]> {
    await this.image('v6')
    const below = await this.repository('v6').manifest('v6')
    const { layers, config } = JSON.parse(Buffer.from(below.bytes).toString()) as {
      layers: Descriptor[]
      config: Descriptor
    }
    const repository = this.repository('mixed')
    const stored = await repository.blob(config.digest, 1 << 20, {})
    const { rootfs } = JSON.parse(Buffer.from(stored).toString()) as { rootfs: { diff_ids: string[] } }
    const replaced: DataFile = ['data/01', Buffer.from('replaced above\n')]
    const added: DataFile = ['data/above', Buffer.alloc(100_000, 'only above; ')]
    const tars = [
      await layerOf([...dataEntries([replaced, ['data/gone', Buffer.from('deleted above')]])]),
      await layerOf([...dataEntries([added]), ...['gone', '05'].map(whiteout)]),
    ]
    const above: Descriptor[] = []
    for (const tar of tars)
      above.push({ mediaType: MEDIA_TYPES.ociLayerGzip, ...(await push(repository, gzipSync(tar))) })
    const diffIds = [...rootfs.diff_ids, ...tars.map((tar) => digestOf(tar))]
    await this.#pushManifest(repository, [...layers, ...above], diffIds)
    const kept = dataFiles().filter(([path]) => path !== 'data/01' && path !== 'data/05')
    return [...kept, replaced, added]
  }

  async #pushPause(): Promise<void> {
    const repository = this.repository('pause')
    const tar = await layerOf(baseEntries())
    const layer = { mediaType: MEDIA_TYPES.ociLayerGzip, ...(await push(repository, gzipSync(tar))) }
    await this.#pushManifest(repository, [layer], [digestOf(tar)], ['/bin/sleep', '1000000'])
  }

  async #pushDeep(): Promise<DataFile[]> {
    const files: DataFile[] = []
    const tars = [await layerOf(baseEntries())]
    for (let index = 1; index < MANY_LAYERS; index += 1) {
      const file: DataFile = [`data/layer-${String(index).padStart(3, '0')}`, Buffer.from(`of layer ${index}\n`)]
      files.push(file)
      tars.push(await layerOf(dataEntries([file])))
    }
    await pushRunnable(this.repository('deep-plain'), tars)
    return files
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.close()
    await this.registry.close()
  }
}

function whiteout(name: string): { path: string; type: 'file' } {
  return { path: `data/.wh.${name}`, type: 'file' }
}
