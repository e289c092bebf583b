import { writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { parsePrefetchPatterns } from '../../builder/index.ts'
import { type ConversionRequest, type ConvertedImage, convertImage, PushRetry } from '../../convert/index.ts'
import { formatReference, hostPlatform, formatPlatform } from '../../registry/index.ts'
import { toolVersion } from '../nydus-image/version.ts'
import { createOutput, formatBytes, formatDuration } from '../output.ts'
import { type CommandContext, createCommand, onOff, progressOption, requireFlags, value } from './command.ts'
import { Connections, imageName } from './connections.ts'
import { checkConvertFlags, chunkSizeOf, compressorOf, type ConvertFlags, dictionaryName, platformsOf, retryOf, targetName } from './convert-flags.ts'
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
  addImageFlags(command)
  addFormatFlags(command)
  addPlaceFlags(command)
  addLaterFlags(command)
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

function addImageFlags(command: Command): void {
  command
    .addOption(value('--source <reference>', 'Source OCI image reference', { env: 'SOURCE' }))
    .addOption(value('--target <reference>', 'Target (Nydus) image reference', { env: 'TARGET' }))
    .addOption(value('--target-suffix <suffix>', 'Target is the source reference with this suffix, conflicts with --target', { env: 'TARGET_SUFFIX' }))
    .addOption(onOff('--source-insecure', 'Skip verifying server certs for HTTPS source registry', 'SOURCE_INSECURE'))
    .addOption(onOff('--target-insecure', 'Skip verifying server certs for HTTPS target registry', 'TARGET_INSECURE'))
    .addOption(onOff('--plain-http', 'Use plain HTTP for all registries', 'PLAIN_HTTP'))
    .addOption(value('--platform <list>', "Convert images for these platforms, for example: 'linux/amd64,linux/arm64'", { fallback: formatPlatform(hostPlatform()) }))
    .addOption(onOff('--all-platforms', 'Convert images for all platforms'))
    .addOption(onOff('--merge-platform', 'Generate an OCI image index with both OCI and Nydus manifests for the image', 'MERGE_PLATFORM'))
    .addOption(onOff('--multi-platform', 'The same as --merge-platform').hideHelp())
    .addOption(onOff('--oci', 'Convert Docker media types to OCI media types', 'OCI'))
    .addOption(onOff('--docker-v2-format', 'Deprecated: keeps Docker media types').hideHelp())
    .addOption(onOff('--with-referrer', 'Associate a reference to the source image (subject)', 'WITH_REFERRER'))
}

function addFormatFlags(command: Command): void {
  command
    .addOption(value('--fs-version <version>', 'Nydus image format version number: 6', { env: 'FS_VERSION', fallback: '6' }))
    .addOption(value('--compressor <name>', 'Algorithm to compress image data blob: none, lz4_block, zstd', { env: 'COMPRESSOR', fallback: 'zstd' }))
    .addOption(value('--chunk-size <bytes>', 'Size of data chunks, a power of two, 0x1000 to 0x1000000', { env: 'FS_CHUNK_SIZE', fallback: '0x100000' }))
    .addOption(value('--fs-chunk-size <bytes>', 'The same as --chunk-size').hideHelp())
    .addOption(onOff('--fs-align-chunk', 'Chunks of RAFS v6 are aligned to 4 KiB always', 'FS_ALIGN_CHUNK'))
    .addOption(onOff('--backend-aligned-chunk', 'Deprecated: the same as --fs-align-chunk', 'BACKEND_ALIGNED_CHUNK').hideHelp())
    .addOption(value('--prefetch-dir <path>', 'An absolute path within the image for prefetch', { env: 'PREFETCH_DIR' }))
    .addOption(onOff('--prefetch-patterns', 'Read prefetch list from STDIN, absolute paths line by line', 'PREFETCH_PATTERNS'))
    .addOption(value('--chunk-dict <expression>', 'Chunks of this image are not stored again: bootstrap:registry:REFERENCE', { env: 'CHUNK_DICT' }))
    .addOption(onOff('--chunk-dict-insecure', 'Skip verifying server certs for HTTPS dict registry', 'CHUNK_DICT_INSECURE'))
}

function addPlaceFlags(command: Command): void {
  command
    .addOption(value('--work-dir <folder>', 'Blobs lie here until they are uploaded', { env: 'WORK_DIR', fallback: './tmp' }))
    .addOption(value('--output-json <file>', 'File path to save the metrics collected during conversion in JSON format', { env: 'OUTPUT_JSON' }))
    .addOption(value('--push-retry-count <count>', 'Number of retries when pushing to registry fails', { env: 'PUSH_RETRY_COUNT', fallback: '3' }))
    .addOption(value('--push-retry-delay <duration>', 'Delay between push retries (5s, 1m, 1h)', { env: 'PUSH_RETRY_DELAY', fallback: '5s' }))
    .addOption(progressOption())
    .addOption(value('--nydus-image <path>', 'Accepted and not needed: the builder is part of this program', { env: 'NYDUS_IMAGE' }))
}

/** Known, and refused with a line that says so. */
function addLaterFlags(command: Command): void {
  for (const flags of ['--source-archive <file>', '--target-archive <file>', '--source-backend-type <type>', '--source-backend-config <json>', '--backend-type <type>', '--backend-config <json>', '--backend-config-file <file>', '--build-cache <reference>', '--build-cache-tag <tag>', '--build-cache-version <version>']) {
    command.addOption(value(flags, 'Not supported in this version').hideHelp())
  }
  command.addOption(value('--build-cache-max-records <count>', 'Not supported in this version', { fallback: '200' }).hideHelp())
  command.addOption(value('--batch-size <bytes>', 'Not supported in this version', { env: 'BATCH_SIZE', fallback: '0' }).hideHelp())
  for (const flags of ['--backend-force-push', '--build-cache-insecure', '--oci-ref', '--reverse']) command.addOption(onOff(flags, 'Not supported in this version').hideHelp())
}

async function run(given: ConvertFlags & { readonly multiPlatform?: boolean; readonly fsChunkSize?: string }, log: Log, signal: AbortSignal): Promise<void> {
  const flags = { ...given, mergePlatform: given.mergePlatform === true || given.multiPlatform === true, chunkSize: given.fsChunkSize ?? given.chunkSize }
  checkConvertFlags(flags)
  if (flags.dockerV2Format === true) log.warning('the option `--docker-v2-format` has been deprecated, use `--oci` instead')
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

async function readPrefetchPaths({ prefetchPatterns, prefetchDir = '' }: ConvertFlags, log: Log): Promise<readonly string[]> {
  let text: Uint8Array = Buffer.from(prefetchDir)
  if (prefetchPatterns === true) text = Buffer.concat(await process.stdin.toArray())
  const { paths, warnings } = parsePrefetchPatterns(text.length === 0 ? Buffer.from('/') : text)
  for (const warning of warnings) log.warning(warning)
  return paths
}

function requestOf(flags: ConvertFlags, connections: Connections, prefetchPaths: readonly string[], log: Log): ConversionRequest {
  const platforms = platformsOf(flags)
  const [compression, chunkSize, retry] = [compressorOf(flags), chunkSizeOf(flags), retryOf(flags)]
  const plainHttp = flags.plainHttp === true ? 'always' : 'fallback'
  const target = imageName(targetName(flags), 'target')
  const open = (reference: typeof target, insecure = false): ConversionRequest['source'] => connections.open(reference, { insecure, plainHttp })
  return {
    source: open(imageName(flags.source, 'source'), flags.sourceInsecure),
    target: open(target, flags.targetInsecure),
    platforms,
    chunkSize,
    compression,
    prefetchPaths,
    dictionary: flags.chunkDict ? open(imageName(dictionaryName(flags.chunkDict), 'chunk dict'), flags.chunkDictInsecure) : undefined,
    toOci: flags.oci === true && flags.dockerV2Format !== true,
    withReferrer: flags.withReferrer === true,
    isMerged: flags.mergePlatform === true,
    builderVersion: toolVersion(),
    workDirectory: flags.workDir,
    retry: new PushRetry({ ...retry, onRetry: (error, left) => log.warning(`push failed, ${left} more tries`, { error: error.message }) }),
  }
}

async function convertWatched(request: ConversionRequest, flags: ConvertFlags, log: Log, signal: AbortSignal): Promise<ConvertedImage> {
  const [source, target] = [formatReference(request.source.reference), formatReference(request.target.reference)]
  const progress = createOutput(log.shows('info') ? flags.progress : 'none').progress('converting', { total: 0, unit: 'bytes' })
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
        onLayer: (layer, { digest, size, outcome }) => log.info(`converted layer ${layer.digest}`, { blob: digest, size: formatBytes(size), push: outcome }),
      },
      signal,
    )
    log.info(`pushed image ${target}, elapse ${formatDuration(converted.pullMs + converted.convertMs + converted.pushMs)}`, { module: 'converter', digest: converted.digest })
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
