import { mkdir } from 'node:fs/promises'
import type { BackendMetrics } from '../backend/index.ts'
import type { ChunkDedup } from '../cache/index.ts'
import { type DecodePool, EngineError, type ImageReader, openImage } from '../engine/index.ts'
import { ChunkSpan } from '../rafs/index.ts'
import { type LoadedBootstrap, loadBootstrap } from './bootstrap-file.ts'
import type { Config } from './config/schema.ts'
import { type MountSettings, settingsOf } from './config/settings.ts'
import { DaemonError, messageOf } from './errors.ts'
import { FileCounters, type FileRecording, recordFiles } from './file-counters.ts'
import { withExternalBlobs } from './external-blobs.ts'
import { openSource } from './image-backend.ts'
import type { LiveLogin } from './live-login.ts'
import type { LiveProxy } from './live-proxy.ts'
import type { ServedImage } from './transports/fuse-handler.ts'
import { Deadline } from '../kernel/index.ts'

/** What an image is opened from. */
export interface ImageRequest {
  /** Path of the bootstrap. */
  readonly source: string
  /** The configuration as it was written, if it is that still. */
  readonly document?: string | undefined
  readonly config: Config
  /** Paths in the image to fetch ahead instead of the image's own table; `/` alone = everything. */
  readonly prefetchFiles: readonly string[]
  /** The node's deduplication database. */
  readonly dedup?: ChunkDedup | undefined
  /** What the API has to do with its registry's login. */
  readonly login: LiveLogin
  /** What the API and the log have to do with its proxy. */
  readonly proxy?: LiveProxy
  /** Serving threads at most. */
  readonly threads: number
  /** Who reads keeps what it reads, so that no cache is needed here. */
  readonly isKeptElsewhere?: boolean
}

/** Requests to a backend at once for readers who wait. */
const DEMAND_REQUESTS = 16
const MEMORY_BYTES = 64 << 20
const WAIT_THAT_COUNTS_MS = 100
/** The main thread's number among the tables of recorded files; serving threads come after it. */
const MAIN_THREAD = 0

let lastId = 0

/** An open image: its metadata, and the engine that reads its data. The one who opened it closes it. */
export class MountedImage {
  readonly request: ImageRequest
  readonly settings: MountSettings
  readonly loaded: LoadedBootstrap
  readonly reader: ImageReader
  readonly metrics: BackendMetrics
  /** What is recorded of its files, if the configuration wants any of it. */
  readonly recording: FileRecording | undefined
  /** The table of the main thread, which answers late reads. */
  readonly files: FileCounters | undefined
  readonly #id = ++lastId
  readonly #closing = new AbortController()
  readonly #closeBackend: () => Promise<void>
  /** Free span lists: reads come and go, and each needs one only until the engine has looked at it. */
  readonly #spans: ChunkSpan[] = []

  private constructor(parts: {
    request: ImageRequest
    settings: MountSettings
    loaded: LoadedBootstrap
    reader: ImageReader
    metrics: BackendMetrics
    closeBackend: () => Promise<void>
  }) {
    this.request = parts.request
    this.settings = parts.settings
    this.loaded = parts.loaded
    this.reader = parts.reader
    this.metrics = parts.metrics
    this.#closeBackend = parts.closeBackend
    const { recorded } = parts.settings
    const { inodeCount, entryLimit, root } = parts.loaded.bootstrap
    if (!recorded.counts && !recorded.pattern && !recorded.latest) return
    this.recording = recordFiles(recorded, Math.min(inodeCount, entryLimit), 1 + parts.request.threads)
    this.files = new FileCounters(this.recording, MAIN_THREAD)
    this.files.seen(root)
  }

  /** Opens an image; nothing is fetched yet. Throws DaemonError. */
  static async open(request: ImageRequest, decoders: DecodePool): Promise<MountedImage> {
    const settings = settingsOf(request.config)
    checkPrefetchFiles(request.prefetchFiles)
    const loaded = await loadBootstrap(request.source)
    const needsCache = loaded.bootstrap.version === 6 && request.isKeptElsewhere !== true
    if (needsCache && settings.cacheDirectory === undefined)
      throw deviceError('UNSUPPORTED', 'configure', 'Rafs v6 must have local blobcache configured')
    const { backend: main, metrics } = openSource(settings.source, request.login, request.proxy)
    let backend = main
    try {
      backend = await withExternalBlobs(main, loaded.bootstrap.blobs, request)
      if (settings.cacheDirectory !== undefined) await mkdir(settings.cacheDirectory, { recursive: true })
      const reader = await openImage({
        bootstrap: loaded.bootstrap,
        backend,
        cacheDirectory: settings.cacheDirectory,
        cacheForm: settings.cacheForm,
        dedup: request.dedup,
        decoders,
        limits: {
          readDeadlineMs: settings.readDeadlineMs,
          amplifyBytes: settings.amplifyBytes,
          demandRequests: DEMAND_REQUESTS,
          prefetchRequests: settings.prefetch.requests,
          prefetchBandwidth: settings.prefetch.bandwidth,
          memoryBytes: MEMORY_BYTES,
          cacheBytes: settings.cacheBytes,
        },
      })
      return new MountedImage({ request, settings, loaded, reader, metrics, closeBackend: () => backend.close() })
    } catch (error) {
      await backend.close()
      if (error instanceof DaemonError) throw error
      throw deviceError('IO', 'create', 'Input/output error (os error 5)', error)
    }
  }

  /** As serving threads need it. */
  served(slot: number): ServedImage {
    const { bytes, inlinedBlobId } = this.loaded
    const { owners } = this.settings
    return { id: this.#id, slot, bytes, inlinedBlobId, hot: this.reader.hot, recording: this.recording, owners }
  }

  /** Reads a file's bytes, clipped to its size; gives their number. Throws EngineError or RafsError, at the latest after `deadlineMs` or the configured deadline. */
  async read(ino: number, offset: number, into: Uint8Array, deadlineMs: number): Promise<number> {
    // The engine keeps to the configured one; a read that had to wait for its turn has less left.
    const hasWaited = deadlineMs < this.settings.readDeadlineMs - WAIT_THAT_COUNTS_MS
    using deadline = hasWaited ? new Deadline(deadlineMs, this.#closing.signal) : undefined
    const signal = deadline?.signal ?? this.#closing.signal
    const count = this.loaded.bootstrap.chunks(ino, offset, into.length, this.#spans)
    let bytes = 0
    for (let index = 0; index < count; index++) bytes += this.#spans[index].length
    if (bytes > 0) await this.reader.read(this.#spans, count, into.subarray(0, bytes), signal)
    return bytes
  }

  /** Starts what goes on in the background: contexts are kept, and data is fetched ahead if the configuration wants it. */
  prefetch(): void {
    this.reader.keepContexts()
    const { prefetchFiles } = this.request
    const { prefetch } = this.settings
    if (!prefetch.enabled) return
    const isAll = prefetch.isStream || (prefetchFiles.length === 1 && prefetchFiles[0] === '/')
    this.reader.prefetch({
      table: prefetchFiles.length === 0 && !isAll,
      paths: isAll ? [] : prefetchFiles.map((path) => Buffer.from(path)),
      everything: isAll || prefetch.everything,
    })
  }

  /** Ends reads under way with an error, and everything else. No thread may use the image's caches any more. */
  async close(): Promise<void> {
    this.#closing.abort(new EngineError('CLOSED', 'the image is being unmounted'))
    try {
      await this.reader.close()
    } finally {
      await this.#closeBackend()
    }
  }
}

function checkPrefetchFiles(paths: readonly string[]): void {
  const wrong = paths.find((path) => !path.startsWith('/') || path.includes('\0'))
  if (wrong === undefined) return
  throw new DaemonError(
    'BAD_REQUEST',
    `cannot prefetch ${JSON.stringify(wrong.slice(0, 200))}: write paths in the image, from "/" on`,
    {
      wire: 'invalid prefetch file list',
    },
  )
}

function deviceError(code: 'UNSUPPORTED' | 'IO', action: string, wire: string, cause?: unknown): DaemonError {
  const message = cause === undefined ? wire : messageOf(cause)
  return new DaemonError(code, `cannot open the image: ${message}`, {
    ...(cause === undefined ? {} : { cause }),
    wire: `RAFS failed to handle request, Failed to ${action} device: ${wire}\``,
  })
}
