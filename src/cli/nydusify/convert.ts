import { writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { parsePrefetchPatterns } from '../../builder/index.ts'
import { type ConversionRequest, type ConvertedImage, convertImage, PushRetry } from '../../convert/index.ts'
import { formatReference } from '../../registry/index.ts'
import { toolVersion } from '../nydus-image/version.ts'
import { createOutput, formatBytes, formatDuration } from '../output.ts'
import { type CommandContext, createCommand, requireFlags } from './command.ts'
import { Connections, imageName } from './connections.ts'
import {
  checkConvertFlags,
  chunkSizeOf,
  compressorOf,
  type ConvertFlags,
  dictionaryName,
  graphDriverTagOf,
  platformsOf,
  retryOf,
  targetName,
} from './convert-flags.ts'
import { addConvertOptions } from './convert-options.ts'
import type { Log } from './log.ts'

const EXAMPLES = `
Examples:
  nydusify convert --source node:24 --target registry.example/node:24-nydus
  nydusify convert --source localhost:5000/app:1 --target-suffix -nydus              writes localhost:5000/app:1-nydus
  nydusify convert --source IMAGE --target IMAGE --merge-platform                    one tag for plain and lazy nodes
  nydusify convert --source IMAGE --target IMAGE --all-platforms --output-json run.json
  nydusify convert --source IMAGE --target IMAGE --prefetch-patterns < paths.txt     these files are fetched first

Logins are those of "docker login" (credential helpers too). Then: nydusify check --source SOURCE --target TARGET
All flags are explained in docs/nydusify.md.`

export function convertCommand(context: CommandContext): Command {
  const command = createCommand('convert', 'Generate a Nydus image from an OCI image').addHelpText('after', EXAMPLES)
  addConvertOptions(command)
  return command.action(async (flags: ConvertFlags) => {
    requireFlags(command, ['source'])
    const log = context.openLog()
    try {
      await run(flags, log, context.signal)
    } finally {
      log.close()
    }
  })
}

async function run(
  given: ConvertFlags & { readonly multiPlatform?: boolean; readonly fsChunkSize?: string },
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  const flags = {
    ...given,
    mergePlatform: given.mergePlatform === true || given.multiPlatform === true,
    chunkSize: given.fsChunkSize ?? given.chunkSize,
  }
  checkConvertFlags(flags)
  if (flags.dockerV2Format === true)
    log.warning('the option `--docker-v2-format` has been deprecated, use `--oci` instead')
  const prefetchPaths = await readPrefetchPaths(flags, log)
  await using connections = new Connections()
  const request = requestOf(flags, connections, prefetchPaths, log)
  let converted: ConvertedImage | undefined
  try {
    converted = await convertWatched(request, flags, log, signal)
  } finally {
    if (flags.outputJson !== undefined) await writeFile(flags.outputJson, `${JSON.stringify(metricsOf(converted))}\n`)
  }
}

async function readPrefetchPaths(
  { prefetchPatterns, prefetchDir = '' }: ConvertFlags,
  log: Log,
): Promise<readonly string[]> {
  let text: Uint8Array = Buffer.from(prefetchDir)
  if (prefetchPatterns === true) text = Buffer.concat(await process.stdin.toArray())
  const { paths, warnings } = parsePrefetchPatterns(text.length === 0 ? Buffer.from('/') : text)
  for (const warning of warnings) log.warning(warning)
  return paths
}

function requestOf(
  flags: ConvertFlags,
  connections: Connections,
  prefetchPaths: readonly string[],
  log: Log,
): ConversionRequest {
  const platforms = platformsOf(flags)
  const [compression, chunkSize, retry] = [compressorOf(flags), chunkSizeOf(flags), retryOf(flags)]
  const plainHttp = flags.plainHttp === true ? 'always' : 'fallback'
  const target = imageName(targetName(flags), 'target')
  const open = (reference: typeof target, insecure = false): ConversionRequest['source'] =>
    connections.open(reference, { insecure, plainHttp })
  return {
    source: open(imageName(flags.source, 'source'), flags.sourceInsecure),
    target: open(target, flags.targetInsecure),
    platforms,
    chunkSize,
    compression,
    prefetchPaths,
    dictionary: flags.chunkDict
      ? open(imageName(dictionaryName(flags.chunkDict), 'chunk dict'), flags.chunkDictInsecure)
      : undefined,
    toOci: flags.oci === true && flags.dockerV2Format !== true,
    withReferrer: flags.withReferrer === true,
    isMerged: flags.mergePlatform === true,
    graphDriverTag: graphDriverTagOf(flags, target),
    builderVersion: toolVersion(),
    workDirectory: flags.workDir,
    retry: new PushRetry({
      ...retry,
      onRetry: (error, left) => log.warning(`push failed, ${left} more tries`, { error: error.message }),
    }),
  }
}

async function convertWatched(
  request: ConversionRequest,
  flags: ConvertFlags,
  log: Log,
  signal: AbortSignal,
): Promise<ConvertedImage> {
  const [source, target] = [formatReference(request.source.reference), formatReference(request.target.reference)]
  const progress = createOutput(log.shows('info') ? flags.progress : 'none').progress('converting', {
    total: 0,
    unit: 'bytes',
  })
  log.info(`pulling image ${source}`, { module: 'converter' })
  try {
    const converted = await convertImage(
      request,
      {
        onSource: (bytes) => {
          log.info(`converting image ${source}`, { module: 'converter', size: formatBytes(bytes) })
          progress.setTotal(bytes)
        },
        onRead: (bytes) => progress.advance(bytes),
        onLayer: (layer, { digest, size, outcome, warnings }) => {
          for (const warning of warnings) log.warning(`layer ${layer.digest}: ${warning}`)
          log.info(`converted layer ${layer.digest}`, { blob: digest, size: formatBytes(size), push: outcome })
        },
      },
      signal,
    )
    log.info(
      `pushed image ${target}, elapse ${formatDuration(converted.pullMs + converted.convertMs + converted.pushMs)}`,
      { module: 'converter', digest: converted.digest },
    )
    const { graphDriverTag: tag } = request
    if (tag !== undefined)
      log.info(`for Docker's storage driver: ${formatReference({ ...request.target.reference, tag })}`)
    return converted
  } finally {
    progress.done()
  }
}

/** Whole numbers only, as programs that read it expect; times are nanoseconds. */
function metricsOf(converted: ConvertedImage | undefined): Record<string, number> | null {
  if (converted === undefined) return null
  const nanoseconds = (milliseconds: number): number => Math.round(milliseconds * 1e6)
  return {
    SourceImageSize: converted.sourceSize,
    TargetImageSize: converted.targetSize,
    SourcePullElapsed: nanoseconds(converted.pullMs),
    ConversionElapsed: nanoseconds(converted.convertMs),
    TargetPushElapsed: nanoseconds(converted.pushMs),
  }
}
