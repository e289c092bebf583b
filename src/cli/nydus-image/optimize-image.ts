import { readFile } from 'node:fs/promises'
import { optimizeImage, parsePrefetchFiles } from '../../builder/index.ts'
import { createOutput, ExitError, type ProgressMode } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { type BackendFlags, backendOf, checkOneBlob } from './backend-flags.ts'
import { checkConfig } from './blob-source.ts'
import { openBootstrapFile } from './bootstrap-file.ts'
import { withImageData } from './image-content.ts'
import { type Log, withLog } from './log.ts'
import { osError } from '../os-error.ts'
import { compressorOf, writeResult } from './result.ts'

/** Values of `optimize`'s options, as the parser gives them. */
export interface OptimizeFlags extends CommonFlags, BackendFlags {
  readonly bootstrap: string
  readonly prefetchFiles?: string
  readonly outputBootstrap?: string
  readonly outputBlobDir?: string
  readonly outputJson?: string
  readonly progress: ProgressMode
}

const ADVICE = '--blob-dir or --backend-type must be specified'
const DEFAULT_OUTPUT = 'optimized_bootstrap'

/** `optimize`: copies what is read first into a blob of its own. */
export async function optimizeImageFile(flags: OptimizeFlags, signal: AbortSignal): Promise<void> {
  await withLog(flags, (log) => optimize(flags, log, signal))
}

async function optimize(flags: OptimizeFlags, log: Log, signal: AbortSignal): Promise<void> {
  const started = performance.now()
  const { outputBlobDir, prefetchFiles, outputBootstrap = DEFAULT_OUTPUT } = flags
  if (outputBlobDir === undefined) throw new ExitError(1, 'missing parameter `output-blob-dir`')
  if (prefetchFiles === undefined) throw new ExitError(1, 'missing parameter `prefetch-files`')
  await checkConfig(flags.config)
  const places = placesOf(flags)
  const backend = await backendOf(places, ADVICE)
  const progress = createOutput(flags.progress).progress('optimizing', { total: 0, unit: 'bytes' })
  try {
    const image = await openBootstrapFile(flags.bootstrap)
    const { files, warnings } = parsePrefetchFiles(await readList(prefetchFiles))
    for (const warning of warnings) log.warn(warning)
    checkOneBlob(places, image)
    await withImageData(image, backend, async (data) => {
      const onBytes = (bytes: number): void => progress.advance(bytes)
      const options = { files, bootstrapPath: outputBootstrap, blobFolder: outputBlobDir }
      const made = await optimizeImage({ image, backend, data, signal, onBytes }, options)
      for (const path of made.skipped) log.warn(`prefetch file ${path} is bad, skip it`)
      if (!made.hasNewBlob) log.warn('there is nothing to prefetch: the image is as it was, without a new blob')
      await writeResult(flags.outputJson, {
        bootstrapPath: outputBootstrap,
        blobs: made.blobs.map(({ id }) => id),
        fsVersion: image.version,
        trace: { consumedTime: { total_optimize: (performance.now() - started) / 1000 }, events: {} },
        compressor: compressorOf(image),
      })
    })
  } catch (cause) {
    signal.throwIfAborted()
    if (cause instanceof ExitError) throw cause
    throw new ExitError(1, 'Failed to generate prefetch bootstrap', { cause })
  } finally {
    progress.done()
    await backend.close()
  }
}

/** A backend or folder that is given wins over a single blob or a configuration, as in the original. */
function placesOf(flags: OptimizeFlags): BackendFlags {
  const { backendType, backendConfig, backendConfigFile, blobDir, blob, config } = flags
  if (backendType !== undefined) return { backendType, backendConfig, backendConfigFile }
  if (blobDir !== undefined) return { blobDir }
  return blob === undefined ? { config } : { blob }
}

async function readList(path: string): Promise<string> {
  const failed = (why: string): ExitError => new ExitError(1, `failed to read prefetch files from ${path}: ${why}`)
  let bytes: Uint8Array
  try {
    bytes = await readFile(path)
  } catch (error) {
    throw failed(osError(error))
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw failed('stream did not contain valid UTF-8') // the only error of decoding
  }
}
