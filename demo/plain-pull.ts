/** What a container engine does without lazy loading, at its best: all layers are downloaded, verified and unpacked before anything runs. */
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import pLimit from 'p-limit'
import {
  anonymous,
  type ClientOptions,
  type Descriptor,
  type Digest,
  hostPlatform,
  type ImageConfig,
  type ImageManifest,
  parseImageConfig,
  parseReference,
  referenceTarget,
  RegistryClient,
  type Repository,
  selectPlatform,
} from '../src/registry/index.ts'
import type { UnpackMessage, UnpackWork } from './unpack-worker.ts'

export interface PullOptions {
  readonly reference: string
  /** Default: anonymous, HTTPS but for localhost. */
  readonly client?: Partial<ClientOptions>
  /** A folder of its own is made in it for each layer: `0`, `1`, …; they must not exist. */
  readonly directory: string
  readonly signal?: AbortSignal
  readonly onProgress?: (downloadedBytes: number, totalBytes: number) => void
}

export interface PulledImage {
  /** Directories of the layers, lowest first; overlayfs wants them the other way round. */
  readonly layers: readonly string[]
  readonly config: ImageConfig
  /** Downloaded: manifests, config and layers. */
  readonly bytes: number
  /** Without those for tokens, redirects and retries. */
  readonly requests: number
  /** Entries of all layers, and bytes of their files. */
  readonly entries: number
  readonly unpackedBytes: number
  /** Seconds from the call: `download` until the last byte was there, `unpack` until the last file was (the two overlap). */
  readonly timings: { readonly download: number; readonly unpack: number }
}

/** As containerd and Docker. */
const DOWNLOADS_AT_ONCE = 3
const MAX_CONFIG_BYTES = 8 << 20
/** Bytes go to the worker in pieces of this size: a message costs more than a copy. */
const BATCH_BYTES = 1 << 20
/** Downloaded and not yet unpacked, a layer: a download waits beyond it. */
const AHEAD_BYTES = 64 << 20

/**
 * Pulls and unpacks an image. Each layer is unpacked in a thread of its own while it downloads; it counts when its digest, and that of its tar, were
 * verified. When it throws, the directories that it made are gone. Needs root for owners, devices and overlayfs's marks.
 */
export async function plainPull(options: PullOptions): Promise<PulledImage> {
  const client = new RegistryClient({ credentials: anonymous(), ...options.client })
  const stop = new AbortController()
  const signal = AbortSignal.any([stop.signal, ...(options.signal === undefined ? [] : [options.signal])])
  const pull = new Pull(client.repository(parseReference(options.reference)), options, signal)
  try {
    return await pull.run()
  } catch (error) {
    stop.abort()
    await pull.undo()
    throw error
  } finally {
    await client.close()
  }
}

class Pull {
  readonly #repository: Repository
  readonly #options: PullOptions
  readonly #signal: AbortSignal
  readonly #from = performance.now()
  readonly #made: string[] = []
  readonly #running: Promise<unknown>[] = []
  #bytes = 0
  #requests = 0
  #downloaded = 0
  #total = 0

  constructor(repository: Repository, options: PullOptions, signal: AbortSignal) {
    this.#repository = repository
    this.#options = options
    this.#signal = signal
  }

  async run(): Promise<PulledImage> {
    const manifest = await this.#manifest(referenceTarget(this.#repository.reference), true)
    this.#total = manifest.layers.reduce((sum, { size }) => sum + size, 0)
    // The layers need not wait for the config: their tars' digests are compared when all are there.
    const config = this.#track(this.#config(manifest.config))
    const limit = pLimit(DOWNLOADS_AT_ONCE)
    const unpacking = manifest.layers.map((layer, index) => this.#layer(layer, index, limit))
    const downloads = unpacking.map(({ downloaded }) => this.#track(downloaded))
    const results = this.#track(Promise.all(unpacking.map(({ unpacked }) => this.#track(unpacked))))
    let download = 0
    const noteDownload = Promise.all(downloads).then(() => {
      download = this.#seconds()
    })
    // All of them at once: the first failure ends the pull.
    const [layers, imageConfig] = await Promise.all([results, config, this.#track(noteDownload)])
    const unpack = this.#seconds()
    checkDiffIds(imageConfig, layers)
    return {
      layers: layers.map(({ directory }) => directory),
      config: imageConfig,
      bytes: this.#bytes,
      requests: this.#requests,
      entries: layers.reduce((sum, { entries }) => sum + entries, 0),
      unpackedBytes: layers.reduce((sum, { bytes }) => sum + bytes, 0),
      timings: { download, unpack },
    }
  }

  /** Waits for what still runs, and removes what was made. */
  async undo(): Promise<void> {
    await Promise.allSettled(this.#running) // the first failure was told
    await Promise.all(this.#made.map((directory) => rm(directory, { recursive: true, force: true })))
  }

  async #manifest(ref: string, mayBeIndex: boolean): Promise<ImageManifest> {
    const { parsed, bytes } = await this.#repository.manifest(ref, { signal: this.#signal })
    this.#requests++
    this.#bytes += bytes.length
    if (parsed.kind === 'image') return parsed.image
    const chosen = mayBeIndex ? selectPlatform(parsed.index, hostPlatform()) : undefined
    if (chosen === undefined) throw new Error(`${this.#options.reference} has no image for this machine`)
    return this.#manifest(chosen.digest, false)
  }

  async #config(descriptor: Descriptor): Promise<ImageConfig> {
    const bytes = await this.#repository.blob(descriptor.digest, MAX_CONFIG_BYTES, { signal: this.#signal })
    this.#requests++
    this.#bytes += bytes.length
    return parseImageConfig(bytes)
  }

  #layer(
    layer: Descriptor,
    index: number,
    limit: ReturnType<typeof pLimit>,
  ): { downloaded: Promise<void>; unpacked: Promise<PulledLayer> } {
    const directory = join(this.#options.directory, String(index))
    const started = Promise.withResolvers<LayerWorker>()
    const downloaded = limit(async () => {
      try {
        this.#signal.throwIfAborted()
        await mkdir(directory)
        this.#made.push(directory)
        const worker = new LayerWorker(directory, this.#signal)
        started.resolve(worker)
        await this.#download(layer, worker)
      } catch (error) {
        started.reject(error)
        throw error
      }
    })
    const unpacked = started.promise.then(async (worker) => ({ directory, ...(await worker.unpacked) }))
    return { downloaded, unpacked }
  }

  async #download(layer: Descriptor, worker: LayerWorker): Promise<void> {
    try {
      const stream = this.#repository.blobStream(layer.digest, { size: layer.size, signal: this.#signal })
      this.#requests++
      for await (const bytes of stream) {
        this.#bytes += bytes.length
        this.#downloaded += bytes.length
        this.#options.onProgress?.(this.#downloaded, this.#total)
        const full = worker.give(bytes)
        if (full !== undefined) await full
      }
      // Only now is the digest verified: the worker does not finish before it is told.
      worker.end()
    } catch (error) {
      await worker.stop()
      throw error
    }
  }

  /** Remembers what `undo` waits for; a failure that comes before anybody waits is told when somebody does. */
  #track<T>(promise: Promise<T>): Promise<T> {
    promise.catch(() => undefined)
    this.#running.push(promise)
    return promise
  }

  #seconds(): number {
    return (performance.now() - this.#from) / 1000
  }
}

interface PulledLayer {
  readonly directory: string
  readonly diffId: string
  readonly entries: number
  readonly bytes: number
}

/** The thread of one layer, and the bytes on their way to it. */
class LayerWorker {
  readonly unpacked: Promise<Omit<PulledLayer, 'directory'>>
  readonly #worker: Worker
  #batch = new Uint8Array(BATCH_BYTES)
  #used = 0
  #ahead = 0
  #room: (() => void) | undefined
  #ended = false

  constructor(directory: string, signal: AbortSignal) {
    const workerData: UnpackWork = { directory }
    this.#worker = new Worker(new URL('./unpack-worker.ts', import.meta.url), { workerData })
    const settled = Promise.withResolvers<Omit<PulledLayer, 'directory'>>()
    this.#worker.on('message', (message: UnpackMessage) => {
      if ('taken' in message) this.#taken(message.taken)
      else if ('done' in message) settled.resolve(message.done)
      else settled.reject(new Error(`cannot unpack a layer into ${directory}: ${message.failed}`))
    })
    this.#worker.on('error', (error) => settled.reject(error))
    const onAbort = (): void => void this.stop()
    signal.addEventListener('abort', onAbort, { once: true })
    this.unpacked = new Promise((resolve, reject) => {
      this.#worker.once('exit', () => {
        signal.removeEventListener('abort', onAbort)
        this.#ended = true
        this.#room?.()
        // Nothing of this thread touches the directory any more. Resolved or rejected before, this changes nothing.
        settled.reject(signal.aborted ? signal.reason : new Error(`the thread that unpacked ${directory} ended early`))
        settled.promise.then(resolve, reject)
      })
    })
    this.unpacked.catch(() => undefined) // whoever awaits it is told; a failed download does not
  }

  /** Copies the bytes; gives a promise to wait for when enough of them are on their way. Throws when the thread failed. */
  give(bytes: Uint8Array): Promise<void> | undefined {
    if (this.#ended) throw new Error('the thread that unpacks the layer has ended')
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + BATCH_BYTES - this.#used)
      this.#batch.set(part, this.#used)
      this.#used += part.length
      at += part.length
      if (this.#used === BATCH_BYTES) this.#send()
    }
    return this.#ahead > AHEAD_BYTES ? new Promise((resolve) => (this.#room = resolve)) : undefined
  }

  /** All bytes were given, and are the right ones. */
  end(): void {
    if (this.#used > 0) this.#send()
    this.#worker.postMessage(null)
  }

  async stop(): Promise<void> {
    await this.#worker.terminate()
  }

  #send(): void {
    const bytes = this.#batch.subarray(0, this.#used)
    this.#ahead += bytes.length
    this.#worker.postMessage(bytes, [bytes.buffer])
    this.#batch = new Uint8Array(BATCH_BYTES)
    this.#used = 0
  }

  #taken(bytes: number): void {
    this.#ahead -= bytes
    if (this.#ahead > AHEAD_BYTES) return
    this.#room?.()
    this.#room = undefined
  }
}

function checkDiffIds(config: ImageConfig, layers: readonly PulledLayer[]): void {
  const wanted: readonly Digest[] = config.rootfs.diff_ids
  if (wanted.length !== layers.length)
    throw new Error(`the image is damaged: ${layers.length} layers, its config names ${wanted.length}`)
  for (const [index, { diffId }] of layers.entries())
    if (diffId !== wanted[index])
      throw new Error(`layer ${index} is damaged: its tar has ${diffId}, the config says ${wanted[index]}`)
}
