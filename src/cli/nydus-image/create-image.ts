import { buildImage, type ImagePlaces, type ImageSource, openDictionary, openParent } from '../../builder/index.ts'
import { createOutput } from '../output.ts'
import { checkConfig } from './blob-source.ts'
import {
  blobDataSize,
  canonicalType,
  checkPlaces,
  checkValues,
  chunkDictPath,
  type CreateFlags,
  layerOptions,
  readAttributes,
  unusedCompressor,
} from './create-options.ts'
import { type Log, withLog } from './log.ts'
import { readPatterns } from './prefetch-input.ts'
import { summary, writeResult } from './result.ts'

/** A path cannot be opened when stdin is a socket, as some programs start others. */
const STDIN: ReadonlySet<string> = new Set(['/dev/stdin', '/dev/fd/0', '/proc/self/fd/0'])

/** `create`: builds an image or layer, logs what came out, writes the result for programs. */
export async function createImage(source: string, flags: CreateFlags, signal: AbortSignal): Promise<void> {
  await withLog(flags, (log) => create(source, flags, log, signal))
}

async function create(source: string, flags: CreateFlags, log: Log, signal: AbortSignal): Promise<void> {
  const chunkSize = checkValues(flags)
  const patterns = await readPatterns(flags.prefetchPolicy, signal, source)
  for (const warning of patterns.warnings) log.warn(warning)
  checkPlaces(flags, source)
  const unused = unusedCompressor(flags)
  if (unused !== undefined) log.info(unused)
  await checkConfig(flags.config)
  const options = layerOptions(flags, chunkSize, patterns)
  const attributes = await readAttributes(flags)
  const { chunkDict, parentBootstrap } = flags
  const dictionary = chunkDict === undefined ? undefined : await openDictionary(chunkDictPath(chunkDict), options)
  const parent = parentBootstrap === undefined ? undefined : await openParent(parentBootstrap, options)
  const places = placesOf(flags)
  const progress = createOutput(flags.progress).progress('building', { total: 0, unit: 'bytes' })
  try {
    const built = await buildImage(
      { kind: sourceKind(flags), path: STDIN.has(source) ? '-' : source, layerSize: blobDataSize(flags) },
      places,
      { ...options, attributes, dictionary, parent },
      { signal, onBytes: (bytes) => progress.advance(bytes) },
    )
    for (const warning of built.warnings) log.warn(warning)
    log.info(summary(built))
    if (places.blob.kind === 'nowhere')
      log.warn(
        'only the bootstrap was written: nydusd of the original needs the places of the chunks too, give --blob-dir',
      )
    await writeResult(flags.outputJson, { ...built, fsVersion: options.version, compressor: compressorName(flags) })
  } finally {
    progress.done()
  }
}

const SOURCE_KINDS: Readonly<Record<string, ImageSource['kind']>> = {
  'dir-rafs': 'directory',
  'tar-tarfs': 'tarfs',
  'estargztoc-ref': 'stargz-toc',
}
/** Of types that leave no choice. */
const COMPRESSORS: Readonly<Record<string, string>> = {
  'tar-tarfs': 'none',
  'targz-ref': 'gzip',
  'estargz-ref': 'gzip',
  'estargztoc-ref': 'gzip',
}

function sourceKind(flags: CreateFlags): ImageSource['kind'] {
  const type = canonicalType(flags)
  return SOURCE_KINDS[type] ?? 'tar'
}

function compressorName(flags: CreateFlags): string {
  if (flags.blobCacheDir !== undefined) return 'none'
  return COMPRESSORS[canonicalType(flags)] ?? flags.compressor
}

/** Of an eStargz layer nothing has to be written but the bootstrap. */
function nowhereOf(flags: CreateFlags): ImagePlaces['blob'] | undefined {
  const isNowhere = flags.blob === undefined && flags.blobDir === undefined
  return isNowhere && canonicalType(flags) === 'estargztoc-ref' ? { kind: 'nowhere' } : undefined
}

function placesOf(flags: CreateFlags): ImagePlaces {
  const { blob, blobDir = '.', blobCacheDir, blobInlineMeta, bootstrap, externalBlob } = flags
  const folder = { kind: 'directory', path: blobDir } as const
  const inline = blobInlineMeta === true
  const cache = blobCacheDir === undefined ? undefined : ({ kind: 'cache', path: blobCacheDir } as const)
  return {
    blob: cache ?? nowhereOf(flags) ?? (blob === undefined ? folder : { kind: 'file', path: blob }),
    externalBlob,
    bootstrap: inline ? undefined : bootstrap === undefined ? folder : { kind: 'file', path: bootstrap },
  }
}
