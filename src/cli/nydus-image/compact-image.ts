import { type Backend, BackendError, localfsBackend } from '../../backend/index.ts'
import { type ChunkDictionary, compactImage, openDictionary } from '../../builder/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'
import { createOutput, ExitError, type ProgressMode } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { backendOf } from './backend-flags.ts'
import { openBootstrapFile } from './bootstrap-file.ts'
import { chunkDictPath } from './create-options.ts'
import { withImageData } from './image-content.ts'
import { type Log, withLog } from './log.ts'
import { decimal } from './numbers.ts'
import { compressorOf, writeResult } from './result.ts'

/** Values of `compact`'s options, as the parser gives them. */
export interface CompactFlags extends CommonFlags {
  readonly bootstrap: string
  readonly blobDir: string
  readonly backendType?: string
  readonly backendConfig?: string
  readonly backendConfigFile?: string
  readonly minUsedRatio?: string
  readonly compactBlobSize?: string
  readonly maxCompactSize?: string
  readonly layersToCompact?: string
  readonly chunkDict?: string
  readonly outputBootstrap?: string
  readonly outputJson?: string
  readonly progress: ProgressMode
}

const ADVICE = '--blob-dir or --backend-type must be specified'
const MAX_RATIO = 99
const DEFAULTS = { compactBlobSize: '10485760', maxCompactSize: '104857600' } as const

/** `compact`: rebuilds blobs that are used badly, and merges small ones. */
export async function compactImageFile(flags: CompactFlags, signal: AbortSignal): Promise<void> {
  await withLog(flags, (log) => compact(flags, log, signal))
}

async function compact(flags: CompactFlags, log: Log, signal: AbortSignal): Promise<void> {
  const backend = await openPlaces(flags)
  const progress = createOutput(flags.progress).progress('compacting', { total: 0, unit: 'bytes' })
  try {
    const image = await openBootstrapFile(flags.bootstrap)
    log.info(`load bootstrap ${JSON.stringify(flags.bootstrap)} successfully`)
    const onBytes = (bytes: number): void => progress.advance(bytes)
    await compactOpened(image, backend, { flags, log, signal, onBytes })
  } finally {
    progress.done()
    await backend.close()
  }
}

interface Run {
  readonly flags: CompactFlags
  readonly log: Log
  readonly signal: AbortSignal
  readonly onBytes: (bytes: number) => void
}

async function compactOpened(image: Bootstrap, backend: Backend, { flags, log, signal, onBytes }: Run): Promise<void> {
  const started = performance.now()
  const bootstrapPath = flags.outputBootstrap ?? `${withoutExtension(flags.bootstrap)}.bootstrap.compact`
  const options = {
    dictionary: await dictionaryOf(image, flags.chunkDict),
    minUsedRatio: ratioOf(flags.minUsedRatio ?? '0'),
    compactBlobSize: decimal(flags.compactBlobSize ?? DEFAULTS.compactBlobSize, '--compact-blob-size'),
    maxCompactSize: decimal(flags.maxCompactSize ?? DEFAULTS.maxCompactSize, '--max-compact-size'),
    minBlobs: decimal(flags.layersToCompact ?? '0', '--layers-to-compact'),
    bootstrapPath,
    blobFolder: flags.blobDir,
    onStep: (text: string) => log.info(text),
  }
  await withImageData(image, backend, async (data) => {
    const blobs = await compactImage({ image, backend, data, signal, onBytes }, options)
    if (blobs === undefined) return log.info('compactor: no chance to compact data blobs')
    log.info('compactor: successfully compacted blob')
    await writeResult(flags.outputJson, {
      bootstrapPath,
      blobs: blobs.map(({ id }) => id),
      fsVersion: image.version,
      trace: { consumedTime: { total_compact: (performance.now() - started) / 1000 }, events: {} },
      compressor: compressorOf(image),
    })
  })
}

async function dictionaryOf(image: Bootstrap, argument: string | undefined): Promise<ChunkDictionary | undefined> {
  if (argument === undefined) return undefined
  return await openDictionary(chunkDictPath(argument), {
    version: image.version,
    chunkSize: image.chunkSize,
    keepOwners: image.explicitOwners,
    digest: image.blobs[0]?.digest ?? 'blake3',
  })
}

/** Blobs that were not pushed yet lie in the folder; all others where the backend has them. */
async function openPlaces(flags: CompactFlags): Promise<Backend> {
  const { backendType, backendConfig, backendConfigFile, blobDir } = flags
  const local = localfsBackend({ dir: blobDir })
  if (backendType === undefined) return local
  const remote = await backendOf({ backendType, backendConfig, backendConfigFile }, ADVICE)
  return {
    name: remote.name,
    open: async (id) => {
      try {
        return await local.open(id)
      } catch (error) {
        if (error instanceof BackendError && error.code === 'NOT_FOUND') return await remote.open(id)
        throw error
      }
    },
    close: async () => {
      await local.close()
      await remote.close()
    },
  }
}

/** `a/image.boot` becomes `a/image`, `.boot` stays. */
function withoutExtension(path: string): string {
  return path.replace(/(?<=[^/])\.[^./]*$/, '')
}

function ratioOf(text: string): number {
  const ratio = decimal(text, '--min-used-ratio')
  if (ratio <= MAX_RATIO) return ratio
  throw new ExitError(1, `invalid --min-used-ratio ${text}: 0 to ${MAX_RATIO} are possible`)
}
