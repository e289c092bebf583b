import { type BlobInfo, BlobWriter, type FinishedBlob, type OwnBlob } from '../blob/index.ts'
import type { CompressionName } from '../codec/index.ts'
import { releaseProgramPages } from '../kernel/index.ts'
import { type ChunkList, FileTree, INLINED_BLOB_ID, type NodeId, type RafsFiles } from '../rafs/index.ts'
import type { BuiltLayer, ExternalTree } from './built-layer.ts'
import { ChunkPipeline, type PackStore } from './chunk-pipeline.ts'
import type { Attributes } from './attributes.ts'
import { type ChunkWorkers, withChunkWorkers } from './chunk-workers.ts'
import { LayerDictionary } from './dictionary.ts'
import type { Content } from './content.ts'
import { BuilderError, coded } from './errors.ts'
import { placeExternal, splitExternal } from './external-files.ts'
import { layerBootstrap } from './layer-bootstrap.ts'
import { checkLayerOptions } from './layer-checks.ts'
import type { LayerOptions, LayerRun } from './layer-options.ts'
import { checkConsistent, importedBlob } from './merge.ts'
import { overlay } from './overlay.ts'
import { dumpOrder, prefetchedFiles } from './file-order.ts'
import { loadParent } from './reference.ts'
import { scanDirectory } from './sources/directory.ts'
import { openReferredLayer } from './sources/open-referred.ts'
import type { ReferredLayer } from './sources/referred-layer.ts'
import type { ByteInput } from '../tar/index.ts'
import { type ArchivedContent, readPlainTarLayer, readTarLayer } from './sources/tar.ts'

/**
 * Builds a layer from a tar: plain, gzip or zstd, told by its first bytes; or a plain one. Nothing of the layer but its tree is kept in memory. Throws BuilderError; the sink has part of a blob then. The same source
 * and options give the same bytes, however many threads there are.
 */
export async function buildLayer(
  source: AsyncIterable<Uint8Array> | ByteInput,
  options: LayerOptions & LayerRun,
): Promise<BuiltLayer> {
  const { keepOwners, signal, onLost } = options
  const isPlain = 'takeNow' in source
  if (options.reference === true && !isPlain) return await buildReference(source, options)
  return await withBuild(options, undefined, (build) =>
    build.fromTar((files, addContent) => {
      const run = { files, keepOwners, signal, onLost, addContent }
      return isPlain ? readPlainTarLayer(source, run) : readTarLayer(source, run)
    }),
  )
}

async function buildReference(
  stream: AsyncIterable<Uint8Array>,
  options: LayerOptions & LayerRun,
): Promise<BuiltLayer> {
  const { keepOwners, signal, onLost } = options
  const layer = await openReferredLayer(stream, options.chunkSize)
  try {
    return await withBuild(options, layer, (build) =>
      build.fromTar(async (files, addContent) => {
        const refer = (content: ArchivedContent): ReturnType<AddContent> => addContent(layer.referred(content))
        const root = await readPlainTarLayer(layer.archive, { files, keepOwners, signal, onLost, addContent: refer })
        await layer.finish()
        return root
      }),
    )
  } finally {
    await layer.end()
  }
}

/** Builds a layer from a directory. Throws as `buildLayer` does; 'SOURCE_CHANGED' when it does not hold still. */
export async function buildDirectoryLayer(
  path: string,
  options: LayerOptions & LayerRun & { readonly onBytes: (bytes: number) => void },
): Promise<BuiltLayer> {
  return await withBuild(options, undefined, (build) => build.fromDirectory(path, options.onBytes))
}

async function withBuild(
  options: LayerOptions & LayerRun,
  referred: ReferredLayer | undefined,
  run: (build: LayerBuild) => Promise<BuiltLayer>,
): Promise<BuiltLayer> {
  try {
    return await withChunkWorkers(async (workers, release) => {
      const build = new LayerBuild(options, { workers, release }, referred)
      try {
        return await run(build)
      } finally {
        build.close()
      }
    })
  } catch (error) {
    options.signal.throwIfAborted()
    throw coded(error)
  }
}

interface Threads {
  readonly workers: ChunkWorkers
  /** Nothing is to be done by threads any more. */
  readonly release: () => Promise<void>
}

/** Trees from here on are worth the milliseconds in which what only the start of the program needed is let go before the bootstrap takes its memory. */
const MANY_ENTRIES = 100_000

type AddContent = (content: Content) => Promise<ChunkList> | ChunkList

class LayerBuild {
  readonly #options: LayerOptions & LayerRun
  readonly #dictionary: LayerDictionary
  readonly #pipeline: ChunkPipeline
  readonly #blob: BlobWriter
  readonly #files = new FileTree()
  readonly #parent: NodeId | undefined
  readonly #threads: Threads
  /** The layer that is referred to. */
  readonly #referred: ReferredLayer | undefined
  #source: 'archive' | 'directory' = 'archive'
  #prefetched: readonly NodeId[] = []
  readonly #started = performance.now()

  constructor(options: LayerOptions & LayerRun, threads: Threads, referred: ReferredLayer | undefined) {
    const { version, alignedChunks, chunkSize, compression, digest, inlineBootstrap, blobToc, sink, parent } = options
    const { batchSize, cipher } = options
    checkLayerOptions(options, referred !== undefined)
    this.#options = options
    this.#referred = referred
    this.#threads = threads
    this.#dictionary = new LayerDictionary(options.dictionary, this.#files.chunks)
    this.#parent = parent === undefined ? undefined : this.#loadParent(parent)
    this.#blob = new BlobWriter({
      chunkSize,
      compression: this.#compression,
      digest,
      inlineBootstrap,
      toc: blobToc,
      rafsVersion: version,
      alignedChunks,
      batches: batchSize > 0,
      cipher,
      offset: options.blobOffset,
      reference: referred && (referred.slicer ?? 'plain'),
      sink,
    })
    this.#pipeline = new ChunkPipeline({
      chunkSize,
      algorithms: { compression: referred === undefined ? compression : 'none', digest, cipher },
      chunks: this.#files.chunks,
      dictionary: this.#dictionary,
      workers: threads.workers,
      store: (record, bytes, place) => {
        options.signal.throwIfAborted()
        if (place === undefined) return this.#blob.lend(record, bytes)
        record.compressed = 'context' in place
        this.#blob.refer(record, place)
      },
      settle: () => this.#blob.takeLent(),
      keep: options.keep,
      packs: batchSize === 0 ? undefined : this.#packs(batchSize),
    })
  }

  get #compression(): CompressionName {
    return this.#referred === undefined ? this.#options.compression : 'gzip'
  }

  #packs(size: number): PackStore {
    return {
      size,
      add: (record) => this.#blob.addToBatch(record),
      store: (bytes, uncompressedSize) => {
        this.#options.signal.throwIfAborted()
        return this.#blob.appendBatch(bytes, uncompressedSize)
      },
    }
  }

  close(): void {
    this.#pipeline.close()
  }

  /** A tar is read once, so contents are stored in its order. */
  async fromTar(read: (files: FileTree, addContent: AddContent) => Promise<NodeId>): Promise<BuiltLayer> {
    this.#threads.workers.expect(this.#options.sourceBytes ?? 0)
    const layer = await read(this.#files, (content) => this.#pipeline.add(content))
    await this.#pipeline.finish()
    return await this.#finish(this.#overParent(layer))
  }

  /** A directory's files are stored in the order of the tree, those to be prefetched first. */
  async fromDirectory(path: string, onBytes: (bytes: number) => void): Promise<BuiltLayer> {
    const { keepOwners, signal, onLost, whiteoutSpec, prefetch } = this.#options
    const dropWhiteouts = this.#parent === undefined ? whiteoutSpec : undefined
    const files = this.#files
    const onListed = (bytes: number): void => this.#threads.workers.expect(bytes)
    const scan = scanDirectory(path, files, { keepOwners, dropWhiteouts, signal, onLost, onListed })
    this.#source = 'directory'
    const { attributes } = this.#options
    const external = attributes === undefined ? undefined : this.#external(scan.root, attributes)
    const root = this.#overParent(scan.root)
    if (prefetch.policy === 'blob') this.#prefetched = prefetchedFiles(files, root, prefetch.paths)
    for (const id of dumpOrder(files, root, prefetch.policy === 'none' ? [] : prefetch.paths)) {
      if (!scan.has(id)) continue
      signal.throwIfAborted()
      const content = scan.content(id)
      let isComplete = false
      try {
        const adding = this.#pipeline.add(content)
        files.setChunks(id, adding instanceof Promise ? await adding : adding)
        isComplete = true
      } finally {
        content.close(isComplete)
      }
      onBytes(content.size)
    }
    await this.#pipeline.finish()
    return await this.#finish(root, external)
  }

  /** Takes external files out of the layer. The original writes v6 bootstraps of them that nobody can open. */
  #external(layer: NodeId, attributes: Attributes): ExternalTree {
    const split = splitExternal(this.#files, layer, attributes)
    const blobs = placeExternal(split, attributes, this.#options)
    if (blobs.length > 0 && this.#options.version === 6)
      throw new BuilderError('BAD_OPTION', 'RAFS v6 has no place for external files; build v5')
    return { bootstrap: this.#bootstrap({ ...split, blobs }), blobs }
  }

  #loadParent(parent: NonNullable<LayerOptions['parent']>): NodeId {
    checkConsistent(
      {
        chunkSize: this.#options.chunkSize,
        explicitOwners: this.#options.keepOwners,
        version: this.#options.version,
        isTarfs: false,
      },
      parent,
    )
    const { root, blobs, chunks } = loadParent(parent, this.#files)
    this.#dictionary.addParent(blobs, chunks)
    return root
  }

  #overParent(layer: NodeId): NodeId {
    if (this.#parent === undefined) return layer
    overlay(this.#files, this.#parent, layer, this.#options.whiteoutSpec)
    return this.#parent
  }

  async #finish(root: NodeId, external?: ExternalTree): Promise<BuiltLayer> {
    // What only chunks needed is let go before the bootstrap takes its memory.
    this.#pipeline.close()
    this.#dictionary.close()
    await this.#threads.release()
    if (this.#files.end > MANY_ENTRIES) releaseProgramPages()
    const treeSeconds = (performance.now() - this.#started) / 1000
    const blob = this.#blob
    await blob.finishData()
    if (this.#options.version === 6 && blob.chunkCount > 0) await this.#options.keepMeta?.(blob.metaPieces())
    let finished: FinishedBlob
    let bootstrap: Uint8Array
    let blobs: readonly BlobInfo[]
    const before = performance.now()
    const layer = this.#referred && { id: this.#referred.id, compressedSize: this.#referred.size }
    if (this.#options.inlineBootstrap) {
      const own = { id: INLINED_BLOB_ID, compressedSize: blob.size, tocSize: 0, tocDigest: undefined }
      blobs = this.#table({ ...own, ...layer })
      bootstrap = this.#bootstrap({ files: this.#files, root, blobs })
      await blob.addBootstrap(bootstrap)
      finished = await blob.finish()
    } else {
      finished = await blob.finish()
      const { id, size, tocSize, tocDigest } = finished
      const own = { id: this.#options.blobId ?? id, compressedSize: size, tocSize, tocDigest }
      blobs = this.#table(layer === undefined ? own : { ...own, ...layer, ...metaBlob(finished) })
      bootstrap = this.#bootstrap({ files: this.#files, root, blobs })
    }
    const counts = { ...this.#dictionary.counts, treeSeconds, bootstrapSeconds: (performance.now() - before) / 1000 }
    const ownBlob = blobs[this.#dictionary.blobs.findIndex(({ kind }) => kind === 'own')]
    return {
      bootstrap,
      get blobMeta() {
        return blob.metaFile()
      },
      blobId: finished.id,
      blobSize: finished.size,
      blobs,
      ownBlob,
      external,
      counts,
    }
  }

  #table(blob: OwnBlob): BlobInfo[] {
    const own = { ...blob, compressedSize: this.#options.blobOffset + blob.compressedSize }
    return this.#dictionary.blobs.map((entry, index) =>
      entry.kind === 'own'
        ? { ...this.#blob.info({ ...own, index }), prefetchSize: this.#prefetchSize(index) }
        : importedBlob(entry.blob, index),
    )
  }

  /** Files to be prefetched are at the head of the blob: where the last of their chunks ends. Only v5 has a place for it. */
  #prefetchSize(ownIndex: number): number {
    if (this.#options.version !== 5) return 0
    const files = this.#files
    let end = 0
    for (const id of this.#prefetched)
      for (let at = 0; at < files.chunkCount(id); at += 1) {
        const { blobIndex, compressedOffset, compressedSize } = files.chunks.at(files.chunk(id, at))
        if (blobIndex === ownIndex) end = Math.max(end, compressedOffset + compressedSize)
      }
    return end
  }

  #bootstrap(tree: RafsFiles): Uint8Array {
    const { version, chunkSize, digest, keepOwners, prefetch } = this.#options
    const [compression, source] = [this.#compression, this.#source]
    return layerBootstrap(tree, { version, chunkSize, digest, keepOwners, prefetch, compression, source })
  }
}

/** Of a reference, the blob that was written only holds the compression context. */
function metaBlob({ id, size }: FinishedBlob): Pick<BlobInfo, 'metaBlobDigest' | 'metaBlobSize'> {
  return { metaBlobDigest: Buffer.from(id, 'hex'), metaBlobSize: size }
}
