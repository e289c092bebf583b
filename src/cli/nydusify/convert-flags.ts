import { statSync } from 'node:fs'
import { dirname } from 'node:path'
import { ConvertError } from '../../convert/index.ts'
import {
  formatReference,
  hostPlatform,
  isTag,
  parsePlatform,
  type Platform,
  type Reference,
  RegistryError,
} from '../../registry/index.ts'
import { goDurationMs } from '../go-duration.ts'
import { ExitError } from '../output.ts'
import { storageFlags, unsupportedStorage } from './backend-flags.ts'
import type { ProgressFlags } from './command.ts'
import { imageName } from './connections.ts'

/** Flags of `convert`, as the parser gives them. */
export interface ConvertFlags extends ProgressFlags {
  readonly source: string
  readonly sourceArchive?: string
  readonly target?: string
  readonly targetArchive?: string
  readonly targetSuffix?: string
  readonly sourceBackendType?: string
  readonly sourceInsecure?: boolean
  readonly targetInsecure?: boolean
  readonly backendType?: string
  readonly backendConfig?: string
  readonly backendConfigFile?: string
  readonly buildCache?: string
  readonly buildCacheTag?: string
  readonly buildCacheMaxRecords: string
  readonly chunkDict?: string
  readonly chunkDictInsecure?: boolean
  readonly mergePlatform?: boolean
  readonly graphDriverTag?: string
  readonly allPlatforms?: boolean
  readonly platform: string
  readonly ociRef?: boolean
  readonly withReferrer?: boolean
  readonly oci?: boolean
  readonly dockerV2Format?: boolean
  readonly reverse?: boolean
  readonly fsVersion: string
  readonly prefetchDir?: string
  readonly prefetchPatterns?: boolean
  readonly compressor: string
  readonly chunkSize: string
  readonly batchSize: string
  readonly workDir: string
  readonly outputJson?: string
  readonly plainHttp?: boolean
  readonly pushRetryCount: string
  readonly pushRetryDelay: string
}

const MAX_RECORDS = 200
const MIN_CHUNK_SIZE = 0x1000
const MAX_CHUNK_SIZE = 0x100_0000
const COMPRESSORS = ['none', 'lz4_block', 'zstd'] as const

function bad(message: string): ExitError {
  return new ExitError(1, message)
}

function unsupported(message: string): ConvertError {
  return new ConvertError('UNSUPPORTED', message)
}

/** Mistakes that the original finds before it asks a registry, in its order and words. */
export function checkConvertFlags(flags: ConvertFlags): void {
  if (given(flags.sourceArchive))
    mustExist(flags.sourceArchive, `source archive not accessible: ${flags.sourceArchive}`)
  if (given(flags.targetArchive))
    mustExist(dirname(flags.targetArchive), `target archive directory not accessible: ${dirname(flags.targetArchive)}`)
  if (given(flags.target) && given(flags.targetSuffix)) throw bad('--target conflicts with --target-suffix')
  if (!given(flags.target) && !given(flags.targetSuffix)) throw bad('--target or --target-suffix is required')
  const storage = storageFlags('', {
    ...(flags.backendType && { type: flags.backendType }),
    ...(flags.backendConfig && { config: flags.backendConfig }),
    ...(flags.backendConfigFile && { configFile: flags.backendConfigFile }),
  })
  if (given(flags.buildCache) && given(flags.buildCacheTag)) throw bad('--build-cache conflicts with --build-cache-tag')
  const records = Number(flags.buildCacheMaxRecords)
  if (!Number.isInteger(records) || records < 1) throw bad('--build-cache-max-records should be greater than 0')
  if (records > MAX_RECORDS) throw bad(`--build-cache-max-records should not be greater than ${MAX_RECORDS}`)
  if (flags.fsVersion !== '5' && flags.fsVersion !== '6') throw bad('--fs-version should be one of [5 6]')
  if (given(flags.prefetchDir) && flags.prefetchPatterns === true)
    throw bad('--prefetch-dir conflicts with --prefetch-patterns')
  if (given(flags.chunkDict)) dictionaryName(flags.chunkDict)
  if (storage !== undefined) throw unsupportedStorage(storage.type, '--backend-type')
  refuseUnsupported(flags)
}

function given(text: string | undefined): text is string {
  return text !== undefined && text !== ''
}

function mustExist(path: string, message: string): void {
  try {
    statSync(path)
  } catch (cause) {
    throw new ExitError(
      1,
      `${message}: stat ${path}: ${(cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such file or directory' : (cause as Error).message}`,
    )
  }
}

/** What this version does not do is said at once, before anything is fetched. */
function refuseUnsupported(flags: ConvertFlags): void {
  const { batchSize } = flags
  if (given(flags.sourceArchive))
    throw unsupported(
      '--source-archive is not supported in this version: push the archive to a registry and name it with --source',
    )
  if (given(flags.targetArchive))
    throw unsupported(
      '--target-archive is not supported in this version: leave it out and the image is pushed to --target',
    )
  if (given(flags.sourceBackendType))
    throw unsupported('--source-backend-type (model images) is not supported in this version')
  if (given(flags.buildCache) || given(flags.buildCacheTag)) {
    throw unsupported(
      '--build-cache and --build-cache-tag are not supported in this version: leave them out; blobs that the target has are not uploaded again',
    )
  }
  if (flags.ociRef === true)
    throw unsupported('--oci-ref (zran) is not supported in this version: leave it out to convert the layers')
  if (flags.reverse === true) throw unsupported('--reverse is not supported in this version')
  if (flags.fsVersion === '5')
    throw unsupported('--fs-version 5 is not supported in this version: it writes RAFS v6; leave the flag out')
  if (parseSize(batchSize) !== 0)
    throw unsupported(`--batch-size ${batchSize} is not supported in this version: leave it out`)
}

/** The reference in `bootstrap:registry:REFERENCE`. */
export function dictionaryName(text: string): string {
  const [format, source, ...rest] = text.split(':')
  const wrong = (why: string): ExitError => bad(`parse chunk dict arguments: ${why}`)
  if (rest.length === 0) throw wrong('invalid args')
  if (format !== 'bootstrap') throw wrong(`invalid chunk dict format ${format}, should be [bootstrap]`)
  if (source !== 'registry' && source !== 'local')
    throw wrong(`invalid chunk dict source ${source}, should be [registry local]`)
  if (source === 'local')
    throw unsupported(
      '--chunk-dict bootstrap:local:… is not supported: blobs of the dictionary have to be in a registry; write bootstrap:registry:REFERENCE',
    )
  return rest.join(':')
}

/** `--target`, or the source's name with the suffix. */
export function targetName({ source, target = '', targetSuffix = '' }: ConvertFlags): string {
  if (target !== '') return target
  const reference = imageName(source, 'source')
  if (reference.digest !== undefined) throw bad(`unsupported digested image reference: ${formatReference(reference)}`)
  return `${formatReference(reference)}${targetSuffix}`
}

/** `--graph-driver-tag`: another one than the target's, in its repository. */
export function graphDriverTagOf({ graphDriverTag }: ConvertFlags, target: Reference): string | undefined {
  if (!given(graphDriverTag)) return undefined
  if (!isTag(graphDriverTag))
    throw bad(
      `invalid --graph-driver-tag ${JSON.stringify(graphDriverTag)}: it is a tag in the repository of the target, 1 to 128 of letters, digits, "_", "." and "-"`,
    )
  if (graphDriverTag === target.tag)
    throw bad(`--graph-driver-tag ${graphDriverTag} is the tag of the target: name another one`)
  return graphDriverTag
}

/** `--platform` and `--all-platforms`; the latter wins, as in the original. */
export function platformsOf({ allPlatforms, platform }: ConvertFlags): readonly Platform[] | 'all' {
  const names = platform
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
  const platforms = names.map((name) => {
    try {
      if (!name.includes('/')) throw bad('no slash')
      return parsePlatform(name)
    } catch (cause) {
      if (!(cause instanceof RegistryError) && !(cause instanceof ExitError)) throw cause
      throw new ExitError(1, `invalid platform: ${JSON.stringify(name)}`)
    }
  })
  if (allPlatforms === true) return 'all'
  return platforms.length === 0 ? [hostPlatform()] : platforms
}

export function compressorOf({ compressor }: Pick<ConvertFlags, 'compressor'>): (typeof COMPRESSORS)[number] {
  const found = COMPRESSORS.find((name) => name === compressor)
  if (found === undefined) throw bad(`--compressor should be one of [${COMPRESSORS.join(' ')}]`)
  return found
}

export function chunkSizeOf({ chunkSize }: Pick<ConvertFlags, 'chunkSize'>): number {
  const size = parseSize(chunkSize)
  if (size === undefined || size < MIN_CHUNK_SIZE || size > MAX_CHUNK_SIZE || (size & (size - 1)) !== 0) {
    throw bad(`invalid --chunk-size ${chunkSize}: it must be a power of two from 0x1000 to 0x1000000`)
  }
  return size
}

/** Decimal or 0x…. */
function parseSize(text: string): number | undefined {
  return /^(?:0[xX][0-9a-fA-F]{1,8}|\d{1,10})$/.test(text) ? Number(text) : undefined
}

export function retryOf({ pushRetryCount, pushRetryDelay }: ConvertFlags): {
  readonly count: number
  readonly delayMs: number
} {
  if (!/^\d{1,4}$/.test(pushRetryCount))
    throw bad(`invalid value ${JSON.stringify(pushRetryCount)} for flag -push-retry-count: parse error`)
  return { count: Number(pushRetryCount), delayMs: parseDuration(pushRetryDelay) }
}

const MAX_DELAY_MS = 24 * 3_600_000

function parseDuration(text: string): number {
  const total = goDurationMs(text)
  if (total === undefined || total > MAX_DELAY_MS)
    throw bad(`parse push retry delay: time: invalid duration ${JSON.stringify(text)}`)
  return total
}
