import { availableParallelism } from 'node:os'
import type { LayerOptions } from '../builder/index.ts'
import {
  type Descriptor,
  type Digest,
  digestOf,
  formatReference,
  hostPlatform,
  MEDIA_TYPES,
} from '../registry/index.ts'
import { copyBlob, type DictionaryImage, fetchDictionary } from './chunk-dictionary.ts'
import type { ConversionRequest, ConversionWatch, ConvertedImage } from './conversion.ts'
import { ConvertError } from './errors.ts'
import { goJson } from './go-json.ts'
import { type ConvertedLayer, convertLayer } from './layer.ts'
import { EMPTY_LAYER, mergedIndex, nydusTwin, plainTwin } from './merged-index.ts'
import { mergeLayers } from './merge-layers.ts'
import { bootstrapConfig, type Document, nydusConfig, nydusManifest, type NydusParts } from './nydus-image.ts'
import { inParallel } from './parallel.ts'
import { type OpenedImage, openSources, type SourceImages } from './source-image.ts'
import { openWorkDirectory } from './work-directory.ts'

/** Layers at once. Each has some 50 MiB of buffers, and their work is done by threads: more bring nothing. */
const MAX_LAYERS = 4

/**
 * Converts an image of one registry into a Nydus image of another (or the same). The tag is pushed last: until then the target shows what it showed before. What was uploaded
 * before a failure is found again by the next try. Throws ConvertError, RegistryError, BuilderError or the signal's reason; the work directory is clean then.
 */
export async function convertImage(
  request: ConversionRequest,
  watch: ConversionWatch,
  signal: AbortSignal,
): Promise<ConvertedImage> {
  const started = performance.now()
  const { reference } = request.target
  if (reference.tag === undefined || reference.digest !== undefined) {
    throw new ConvertError(
      'BAD_OPTION',
      `cannot push to ${formatReference(reference)}: its digest is not known before; name a tag only`,
    )
  }
  const sources = await openSources(request.source, request.platforms, signal)
  watch.onSource(layersOf(sources.images).reduce((sum, { layer }) => sum + layer.size, 0))
  const pulled = performance.now()
  await using work = await openWorkDirectory(request.workDirectory)
  const conversion = new Conversion(request, watch, work.path, signal)
  const dictionary = await conversion.openDictionary(sources)
  const layers = await conversion.layers(sources.images, dictionary)
  const converted = performance.now()
  const { digest, size } = await conversion.push(sources, layers, dictionary)
  return {
    digest,
    sourceSize: sources.images.reduce((sum, image) => sum + sizeOf(image), 0),
    targetSize: size,
    pullMs: pulled - started,
    convertMs: converted - pulled,
    pushMs: performance.now() - converted,
  }
}

interface LayerToConvert {
  readonly layer: Descriptor
  readonly diffId: Digest
}

/** Each layer once, however many images have it. */
function layersOf(images: readonly OpenedImage[]): LayerToConvert[] {
  const layers = new Map<Digest, LayerToConvert>()
  for (const { manifest, config } of images) {
    for (const [index, layer] of manifest.layers.entries()) {
      const diffId = config.rootfs.diff_ids[index]
      if (diffId !== undefined && !layers.has(layer.digest)) layers.set(layer.digest, { layer, diffId })
    }
  }
  return [...layers.values()]
}

function sizeOf({ manifest, configBytes }: OpenedImage): number {
  return manifest.layers.reduce((sum, { size }) => sum + size, configBytes.length)
}

type Layers = ReadonlyMap<Digest, ConvertedLayer>

interface MadeManifest {
  readonly image: OpenedImage
  readonly manifest: Document
}

/** One run: what all of its steps need. */
class Conversion {
  readonly #request: ConversionRequest
  readonly #watch: ConversionWatch
  readonly #workDirectory: string
  readonly #signal: AbortSignal

  constructor(request: ConversionRequest, watch: ConversionWatch, workDirectory: string, signal: AbortSignal) {
    this.#request = request
    this.#watch = watch
    this.#workDirectory = workDirectory
    this.#signal = signal
  }

  async openDictionary({ images }: SourceImages): Promise<DictionaryImage | undefined> {
    const { dictionary, chunkSize } = this.#request
    if (dictionary === undefined) return undefined
    const config = images[0]?.config ?? hostPlatform()
    const wanted = { chunkSize, keepOwners: true, digest: 'blake3', version: 6 } as const
    return await fetchDictionary(
      dictionary,
      { os: config.os, architecture: config.architecture },
      this.#workDirectory,
      wanted,
      this.#signal,
    )
  }

  async layers(images: readonly OpenedImage[], dictionary: DictionaryImage | undefined): Promise<Layers> {
    const options = this.#layerOptions(dictionary)
    const pending = layersOf(images)
    const limit = Math.max(2, Math.min(MAX_LAYERS, availableParallelism()))
    const converted = await inParallel(pending, limit, this.#signal, async ({ layer, diffId }, signal) => {
      const { source, target, retry } = this.#request
      const origin = { repository: source, layer, diffId, signal, onRead: (bytes: number) => this.#watch.onRead(bytes) }
      const done = await convertLayer({ origin, target, workDirectory: this.#workDirectory, options, retry })
      this.#watch.onLayer(layer, done)
      return [layer.digest, done] as const
    })
    return new Map(converted)
  }

  /** The options of a layer that the original gives its builder. */
  #layerOptions(dictionary: DictionaryImage | undefined): LayerOptions {
    const { chunkSize, compression, prefetchPaths } = this.#request
    return {
      chunkSize,
      compression,
      digest: 'blake3',
      batchSize: 0,
      cipher: undefined,
      blobOffset: 0,
      keepOwners: true,
      version: 6,
      alignedChunks: false,
      inlineBootstrap: true,
      blobToc: true,
      blobId: undefined,
      whiteoutSpec: 'none',
      prefetch: { policy: 'fs', paths: prefetchPaths },
      dictionary: dictionary?.chunks,
      parent: undefined,
    }
  }

  /** Pushes bootstraps, configs and manifests; the tag last. */
  async push(
    sources: SourceImages,
    layers: Layers,
    dictionary: DictionaryImage | undefined,
  ): Promise<{ digest: Digest; size: number }> {
    const { isMerged, graphDriverTag, target } = this.#request
    const made: MadeManifest[] = []
    const bare: MadeManifest[] = []
    let size = 0
    for (const image of sources.images) {
      const { manifest, alone, contentSize } = await this.#pushNydus(image, layers, dictionary)
      made.push({ image, manifest })
      if (alone !== undefined) bare.push({ image, manifest: alone })
      size += contentSize
    }
    if (graphDriverTag !== undefined) await this.#pushUnder(graphDriverTag, sources, bare)
    const tag = target.reference.tag ?? 'latest'
    if (!isMerged) return { digest: await this.#pushUnder(tag, sources, made), size }
    for (const { manifest } of made) await this.#pushManifest(digestOf(manifest.bytes), manifest)
    const plain: Descriptor[] = []
    for (const { image } of made) {
      const twin = await this.#pushPlain(image)
      plain.push(twin.descriptor)
      size += twin.contentSize
    }
    const nydus = made.map(({ image, manifest }) => nydusTwin(image, manifest))
    return { digest: await this.#pushManifest(tag, mergedIndex(plain, nydus)), size }
  }

  /** One manifest, or an index of several. */
  async #pushUnder(tag: string, sources: SourceImages, made: readonly MadeManifest[]): Promise<Digest> {
    const [only] = made
    if (made.length === 1 && only !== undefined) return await this.#pushManifest(tag, only.manifest)
    for (const { manifest } of made) await this.#pushManifest(digestOf(manifest.bytes), manifest)
    return await this.#pushManifest(tag, this.#index(sources, made))
  }

  async #pushNydus(
    image: OpenedImage,
    layers: Layers,
    dictionary: DictionaryImage | undefined,
  ): Promise<{ manifest: Document; alone: Document | undefined; contentSize: number }> {
    const { target, retry, prefetchPaths, builderVersion, toOci, withReferrer, isMerged, source } = this.#request
    const own = image.manifest.layers.flatMap(({ digest }) => layers.get(digest) ?? [])
    const merged = await mergeLayers(own, { prefetchPaths, dictionary, target, retry, signal: this.#signal })
    await this.#pushBytes(merged.bootstrap.digest, merged.bootstrap.bytes)
    const config = await this.#pushConfig(nydusConfig(image.configBytes, merged.blobs, merged.bootstrap))
    const parts: NydusParts = {
      source: {
        manifest: image.manifest,
        descriptor: image.descriptor,
        reference: formatReference(source.reference),
      },
      blobs: merged.blobs,
      bootstrap: merged.bootstrap,
      builderVersion,
      toOci,
      withReferrer,
      isMerged,
    }
    return {
      manifest: nydusManifest(parts, config),
      alone: this.#request.graphDriverTag === undefined ? undefined : await this.#bootstrapAlone(image, parts),
      contentSize: merged.blobs.reduce((sum, { size }) => sum + size, merged.bootstrap.size + config.size),
    }
  }

  /** Docker's own storage unpacks whatever a manifest names. The data is held by the other manifest, which names it. */
  async #bootstrapAlone({ configBytes }: OpenedImage, parts: NydusParts): Promise<Document> {
    const config = await this.#pushConfig(bootstrapConfig(configBytes, parts.bootstrap))
    return nydusManifest({ ...parts, blobs: [], withReferrer: false, isMerged: false }, config)
  }

  async #pushConfig(bytes: Uint8Array): Promise<{ readonly digest: Digest; readonly size: number }> {
    const config = { digest: digestOf(bytes), size: bytes.length }
    await this.#pushBytes(config.digest, bytes)
    return config
  }

  /** The plain image beside the Nydus one: its layers come along. */
  async #pushPlain(image: OpenedImage): Promise<{ descriptor: Descriptor; contentSize: number }> {
    const { source, target, retry } = this.#request
    const twin = plainTwin(image)
    await inParallel(image.manifest.layers, MAX_LAYERS, this.#signal, ({ digest, size }, signal) =>
      copyBlob({ digest, size, from: source, to: target }, retry, signal),
    )
    await this.#pushBytes(digestOf(EMPTY_LAYER), EMPTY_LAYER)
    await this.#pushBytes(twin.config.digest, twin.config.bytes)
    await this.#pushManifest(twin.descriptor.digest, twin.manifest)
    const contentSize = image.manifest.layers.reduce(
      (sum, { size }) => sum + size,
      EMPTY_LAYER.length + twin.config.bytes.length,
    )
    return { descriptor: twin.descriptor, contentSize }
  }

  /** The source's index with the converted manifests in it. */
  #index({ index }: SourceImages, made: readonly MadeManifest[]): Document {
    const { toOci } = this.#request
    const sourceType = index?.descriptor.mediaType ?? MEDIA_TYPES.ociIndex
    const mediaType = toOci ? MEDIA_TYPES.ociIndex : sourceType
    const manifests = made.map(({ image, manifest: { bytes, mediaType: type } }) => ({
      ...image.entry,
      mediaType: type,
      digest: digestOf(bytes),
      size: bytes.length,
    }))
    return { bytes: goJson('index', { ...index?.index, schemaVersion: 2, mediaType, manifests }, 'compact'), mediaType }
  }

  async #pushBytes(digest: Digest, bytes: Uint8Array): Promise<void> {
    const { target, retry } = this.#request
    const blob = { digest, size: bytes.length, open: () => piece(bytes) }
    await retry.run(() => target.uploadBlob(blob, { signal: this.#signal }), this.#signal)
  }

  async #pushManifest(ref: string, { bytes, mediaType }: Document): Promise<Digest> {
    const { target, retry } = this.#request
    const { digest } = await retry.run(
      () => target.pushManifest(ref, bytes, mediaType, { signal: this.#signal }),
      this.#signal,
    )
    return digest
  }
}

async function* piece(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}
