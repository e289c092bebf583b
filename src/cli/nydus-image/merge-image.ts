import { BuilderError, type MergeLayer, mergeImages, writeWhole } from '../../builder/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'
import { createOutput, ExitError, type Progress } from '../output.ts'
import { checkConfig } from './blob-source.ts'
import { blobIdOf, openBootstrapFile } from './bootstrap-file.ts'
import { checkPlace, placeOf } from './bootstrap-place.ts'
import { chunkDictPath } from './create-options.ts'
import { type Log, withLog } from './log.ts'
import { factsOf, type MergeFlags, type SourceFacts } from './merge-flags.ts'
import { readPatterns } from './prefetch-input.ts'
import { compressorOf, writeResult } from './result.ts'

/** The original's exit code for layers that do not fit together; converters forget their cache and try again then. */
const INCONSISTENT = 2

/** `merge`: layers into one image. */
export async function mergeImageFiles(
  sources: readonly string[],
  flags: MergeFlags,
  signal: AbortSignal,
): Promise<void> {
  await withLog(flags, async (log) => {
    const progress = createOutput(flags.progress).progress('merging layers', { total: sources.length, unit: 'items' })
    try {
      await merge(sources, flags, { log, signal, progress })
    } catch (error) {
      if (!(error instanceof BuilderError) || error.code !== 'INCONSISTENT') throw error
      log.error(`message:${error.message}`)
      throw new ExitError(INCONSISTENT, '')
    } finally {
      progress.done()
    }
  })
}

interface MergeRun {
  readonly log: Log
  readonly signal: AbortSignal
  readonly progress: Progress
}

async function merge(
  sources: readonly string[],
  flags: MergeFlags,
  { log, signal, progress }: MergeRun,
): Promise<void> {
  const started = performance.now()
  await checkPlace(flags)
  const facts = factsOf(flags, sources.length)
  const dictionaryPath = flags.chunkDict === undefined ? undefined : chunkDictPath(flags.chunkDict)
  await checkConfig(flags.config)
  const { paths, warnings } = await readPatterns(flags.prefetchPolicy, signal)
  for (const warning of warnings) log.warn(warning)
  const layers: MergeLayer[] = []
  for (const [i, path] of sources.entries()) {
    signal.throwIfAborted()
    layers.push(layerOf(path, await openBootstrapFile(path), facts[i], flags.config !== undefined))
  }
  const { version } = layers[0]?.image ?? {}
  const compressor = compressorOf(layers[0]?.image)
  const { bootstrap, blobs } = mergeImages(layers, {
    parent: await openOptional(flags.parentBootstrap),
    dictionary: await openOptional(dictionaryPath),
    whiteoutSpec: 'oci',
    prefetchPaths: flags.prefetchPolicy === 'fs' ? paths : [],
    onLayer: () => progress.advance(1),
  })
  signal.throwIfAborted()
  const bootstrapPath = placeOf(flags, bootstrap)
  await writeWhole(bootstrapPath, bootstrap)
  const ids = blobs.map(({ id }) => id)
  const trace = { consumedTime: { merge: (performance.now() - started) / 1000 }, events: {} }
  await writeResult(flags.outputJson, {
    bootstrapPath,
    blobs: ids,
    fsVersion: version,
    trace,
    compressor,
  })
}

/** The real id of a layer's own blob: as the lists say, else the name of its file; with a configuration, as the bootstrap says. A plain tar is never inside its image, so its id is known. */
function layerOf(path: string, image: Bootstrap, facts: SourceFacts | undefined, knowsBlobs: boolean): MergeLayer {
  const known = knowsBlobs || image.isTarfs ? undefined : (facts?.originalId ?? blobIdOf(path))
  return {
    name: path,
    image,
    blobId: facts?.blobDigest ?? known,
    layerId: facts?.originalId,
    metaBlobDigest: facts?.blobDigest === undefined ? undefined : Buffer.from(facts.blobDigest, 'hex'),
    blobSize: facts?.blobSize,
    tocDigest: facts?.tocDigest,
    tocSize: facts?.tocSize,
  }
}

async function openOptional(path: string | undefined): Promise<Bootstrap | undefined> {
  return path === undefined || path === '' ? undefined : await openBootstrapFile(path)
}
