import { readSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { INLINED_BLOB_ID } from '../rafs/index.ts'
import { refuseDirectory } from './artifact.ts'
import { checkExternalPlaces, type ExternalOutput } from './external-output.ts'
import { type BlobPlace, openBlobOutput, type OutputPlace } from './blob-output.ts'
import { buildDirectoryLayer, buildLayer } from './build-layer.ts'
import { buildStargzLayer } from './build-stargz.ts'
import { buildTarfsLayer } from './build-tarfs.ts'
import type { BuiltLayer } from './built-layer.ts'
import { BuilderError } from './errors.ts'
import { TarFile } from './sources/tar-file.ts'
import { ImageFiles } from './image-files.ts'
import { Losses } from './losses.ts'
import type { LayerOptions, LayerRun } from './layer-options.ts'

/** A directory, or a tar (plain, gzip, zstd) in a file or FIFO; `-` is stdin. Of `tarfs` the tar, which must be plain, is the image's blob itself, and only a bootstrap is written. Of `stargz-toc`, the table of contents of an eStargz layer, the blob is the layer, and what is written as blob tells where its chunks are. */
export interface ImageSource {
  readonly kind: 'directory' | 'tar' | 'tarfs' | 'stargz-toc'
  readonly path: string
  /** Of `stargz-toc`: bytes of the layer that `blobId` names. */
  readonly layerSize?: number | undefined
}

export interface ImagePlaces {
  readonly blob: BlobPlace
  /** With `attributes`: the file for what the original calls the external blob; it is empty, or carries the bootstrap of external files when bootstraps are inlined. */
  readonly externalBlob?: string | undefined
  /** Undefined for an inlined bootstrap. */
  readonly bootstrap: OutputPlace | undefined
}

export interface ImageRun {
  readonly signal: AbortSignal
  /** Bytes of the source that were read, now and then. */
  readonly onBytes: (bytes: number) => void
}

export interface BuiltImage {
  /** Undefined for an inlined bootstrap. */
  readonly bootstrapPath: string | undefined
  /** Undefined when no blob was written: the layer has no data of its own. */
  readonly blobPath: string | undefined
  /** Ids in table order; an inlined blob has its real one. */
  readonly blobs: readonly string[]
  readonly blobSize: number
  /** With `attributes`. */
  readonly external?: ExternalOutput | undefined
  /** What the image cannot hold of its source, for people: one line, or none. */
  readonly warnings: readonly string[]
  /** Seconds by step, and counts, by the original's names. */
  readonly trace: {
    readonly consumedTime: Readonly<Record<string, number>>
    readonly events: Readonly<Record<string, number | string>>
  }
}

/** Stays in a processor's own cache. */
const READ_BYTES = 256 * 1024
/** Of a file, before others have their turn. */
const READS_A_TURN = 4

/**
 * Builds an image or layer into files. Each appears whole or not at all, and the blob before the bootstrap that speaks of it. Throws BuilderError, or the signal's reason; nothing
 * new is left behind then.
 */
export async function buildImage(
  source: ImageSource,
  places: ImagePlaces,
  options: LayerOptions,
  run: ImageRun,
): Promise<BuiltImage> {
  const started = performance.now()
  if ((places.bootstrap === undefined) !== options.inlineBootstrap) {
    throw new BuilderError('BAD_OPTION', 'the bootstrap goes into the blob or has a place of its own, one of both')
  }
  if (options.attributes !== undefined) checkExternalPlaces(source, places, options)
  await checkPlaces(places)
  if (source.kind === 'tarfs') return await buildOverTar(source.path, places, options, run)
  const losses = new Losses()
  const blob = await openBlobOutput(places.blob)
  let files: ImageFiles | undefined
  try {
    const built = await buildFrom(
      source,
      {
        ...options,
        signal: run.signal,
        onLost: losses.add,
        sink: (bytes) => blob.write(bytes),
        keep: blob.keep,
        keepMeta: blob.keepMeta,
      },
      run.onBytes,
    )
    run.signal.throwIfAborted()
    files = await ImageFiles.settled(built, places)
    // Of an eStargz layer the id is that of the layer, which is not what is written.
    const blobPath = await blob.publish(built, source.kind === 'stargz-toc' ? undefined : options.blobId)
    return {
      ...(await files.publish()),
      blobPath,
      blobs: built.blobs.map((one) => (one === built.ownBlob && one.id === INLINED_BLOB_ID ? built.blobId : one.id)),
      blobSize: built.blobSize,
      warnings: losses.warnings,
      trace: traceOf(built, (performance.now() - started) / 1000),
    }
  } catch (error) {
    await files?.retract()
    await blob.retract()
    throw error
  } finally {
    await files?.discard()
    await blob.discard()
  }
}

/** What cannot be written is told before anything is read. */
async function checkPlaces({ blob, bootstrap, externalBlob }: ImagePlaces): Promise<void> {
  for (const place of [blob, bootstrap]) if (place?.kind === 'file') await refuseDirectory(place.path)
  if (externalBlob !== undefined) await refuseDirectory(externalBlob)
}

async function buildOverTar(
  path: string,
  places: ImagePlaces,
  options: LayerOptions,
  run: ImageRun,
): Promise<BuiltImage> {
  const started = performance.now()
  if (places.bootstrap === undefined)
    throw new BuilderError('BAD_OPTION', 'a bootstrap over a plain tar needs a place of its own')
  const losses = new Losses()
  const built = await buildTarfsLayer(archiveOf(path, run), { ...options, signal: run.signal, onLost: losses.add })
  run.signal.throwIfAborted()
  const files = await ImageFiles.settled(built, places)
  try {
    return {
      ...(await files.publish()),
      blobPath: undefined,
      blobs: built.blobs.map(({ id }) => id),
      blobSize: built.blobSize,
      warnings: losses.warnings,
      trace: traceOf(built, (performance.now() - started) / 1000),
    }
  } catch (error) {
    await files.retract()
    throw error
  } finally {
    await files.discard()
  }
}

async function buildFrom(
  source: ImageSource,
  options: LayerOptions & LayerRun,
  onBytes: (bytes: number) => void,
): Promise<BuiltLayer> {
  if (source.kind === 'directory') return await buildDirectoryLayer(source.path, { ...options, onBytes })
  if (source.kind === 'stargz-toc') return await buildStargz(source, options, onBytes)
  const run = { signal: options.signal, onBytes }
  const file = options.reference === true || source.path === '-' ? undefined : TarFile.open(source.path, run)
  try {
    return await buildLayer(file ?? archiveOf(source.path, run), { ...options, sourceBytes: file?.size })
  } finally {
    await file?.close()
  }
}

async function buildStargz(
  { path, layerSize }: ImageSource,
  options: LayerOptions & LayerRun,
  onBytes: (bytes: number) => void,
): Promise<BuiltLayer> {
  const { blobId, inlineBootstrap, blobToc, signal } = options
  if (blobId === undefined || layerSize === undefined || inlineBootstrap || blobToc)
    throw new BuilderError('BAD_OPTION', 'a table of contents needs id and size of its layer, and a bootstrap apart')
  return await buildStargzLayer(archiveOf(path, { signal, onBytes }), { ...options, blobId, blobSize: layerSize })
}

async function* archiveOf(path: string, { signal, onBytes }: ImageRun): AsyncGenerator<Uint8Array> {
  const pieces = path === '-' ? (process.stdin as AsyncIterable<Uint8Array>) : piecesOf(path)
  const iterator = pieces[Symbol.asyncIterator]()
  try {
    for (;;) {
      const { done, value } = await nextOrAborted(iterator, signal)
      if (done === true) return
      onBytes(value.length)
      yield value
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).syscall === undefined) throw cause
    throw new BuilderError('BAD_SOURCE', `cannot read the layer ${path}: ${(cause as Error).message}`, { cause })
  } finally {
    if (!signal.aborted) await iterator.return?.()
  }
}

/** A FIFO that nobody writes to blocks its reader for ever, even against signals: what waits for it is left behind, and the build ends. */
async function nextOrAborted(
  iterator: AsyncIterator<Uint8Array>,
  signal: AbortSignal,
): Promise<IteratorResult<Uint8Array>> {
  signal.throwIfAborted()
  return await new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', abort, { once: true })
    void iterator
      .next()
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', abort))
  })
}

/** Pieces are views of one buffer, each valid until the next one is asked for. */
async function* piecesOf(path: string): AsyncGenerator<Uint8Array> {
  const file = await open(path)
  try {
    yield* (await file.stat()).isFile() ? piecesOfFile(file) : piecesOfPipe(file)
  } finally {
    await file.close()
  }
}

async function* piecesOfPipe(file: FileHandle): AsyncGenerator<Uint8Array> {
  const piece = new Uint8Array(READ_BYTES)
  for (;;) {
    const { bytesRead } = await file.read(piece, 0, READ_BYTES, null)
    if (bytesRead === 0) return
    yield piece.subarray(0, bytesRead)
  }
}

/** Read on this thread, a few at a time: the kernel reads ahead, and what another processor has read is five times slower to use. */
async function* piecesOfFile(file: FileHandle): AsyncGenerator<Uint8Array> {
  const piece = new Uint8Array(READ_BYTES)
  for (let count = 1; ; count += 1) {
    const bytes = readSync(file.fd, piece, 0, READ_BYTES, null)
    if (bytes === 0) return
    yield piece.subarray(0, bytes)
    if (count % READS_A_TURN === 0) await setImmediate()
  }
}

function traceOf({ counts }: BuiltLayer, totalSeconds: number): BuiltImage['trace'] {
  const events: Record<string, number | string> = {
    egid: String(process.getegid?.() ?? 0),
    euid: String(process.geteuid?.() ?? 0),
  }
  // As in the original, what did not happen is not told.
  if (counts.storedBytes > 0) events['blob_uncompressed_size'] = counts.storedBytes
  if (counts.duplicateChunks > 0) events['dedup_chunks'] = counts.duplicateChunks
  if (counts.duplicateBytes > 0) events['dedup_uncompressed_size'] = counts.duplicateBytes
  return {
    consumedTime: {
      build_bootstrap: counts.bootstrapSeconds,
      build_tree: counts.treeSeconds,
      total_build: totalSeconds,
    },
    events,
  }
}
