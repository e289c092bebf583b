import { basename, dirname } from 'node:path'
import { ChunkDatabase, checkSources, generateDictionary, writeWhole } from '../../builder/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'
import { ExitError } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { checkConfig } from './blob-source.ts'
import { blobIdOf, openBootstrapFile } from './bootstrap-file.ts'
import { checkPlace, placeOf } from './bootstrap-place.ts'
import { type Log, withLog } from './log.ts'
import { readPatterns } from './prefetch-input.ts'
import { compressorOf, writeResult } from './result.ts'

/** Values of `chunkdict generate`'s options, as the parser gives them. */
export interface ChunkdictFlags extends CommonFlags {
  readonly database: string
  readonly bootstrap?: string
  readonly blobDir?: string
  readonly prefetchPolicy: 'fs' | 'blob' | 'none'
  readonly outputJson?: string
  readonly config?: string
  readonly verbose?: boolean
}

/** An image whose chunks go into the database. */
interface Source {
  readonly name: string
  readonly image: string
  readonly version: string
  readonly bootstrap: Bootstrap
}

/** `chunkdict generate`: saves what images consist of, and makes a dictionary of what many of them have. */
export async function generateChunkdict(
  sources: readonly string[],
  flags: ChunkdictFlags,
  signal: AbortSignal,
): Promise<void> {
  await withLog(flags, (log) => generate(sources, flags, log, signal))
}

async function generate(
  sources: readonly string[],
  flags: ChunkdictFlags,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  const { paths, warnings } = await readPatterns(flags.prefetchPolicy, signal)
  for (const warning of warnings) log.warn(warning)
  const bootstraps = await openAll(sources, signal)
  const images = bootstraps.map((opened) => ({ ...opened, ...releaseOf(opened.name) }))
  const path = databasePath(flags.database)
  await checkConfig(flags.config)
  await checkPlace(flags)
  checkSources(images)
  const database = ChunkDatabase.open(path)
  let isDone = false
  try {
    await saveAndGenerate(database, images, {
      flags,
      prefetchPaths: flags.prefetchPolicy === 'fs' ? paths : [],
      log,
      signal,
    })
    isDone = true
  } finally {
    if (isDone) database.close()
    else database.discard()
  }
}

interface Run {
  readonly flags: ChunkdictFlags
  readonly prefetchPaths: readonly string[]
  readonly log: Log
  readonly signal: AbortSignal
}

async function saveAndGenerate(
  database: ChunkDatabase,
  images: readonly Source[],
  { flags, prefetchPaths, log, signal }: Run,
): Promise<void> {
  const started = performance.now()
  await database.save(images, signal)
  log.info(`Chunkdict metadata is saved at: ${JSON.stringify(flags.database)}`)
  const bootstraps = images.map(({ bootstrap }) => bootstrap)
  const made = await generateDictionary(database, bootstraps, { prefetchPaths, signal })
  report(made, log)
  signal.throwIfAborted()
  const place = placeOf(flags, made.bootstrap)
  await writeWhole(place, made.bootstrap)
  await writeResult(flags.outputJson, {
    bootstrapPath: place,
    blobs: made.blobs.map(({ id }) => id),
    fsVersion: bootstraps[0]?.version,
    trace: { consumedTime: { dump_bootstrap: (performance.now() - started) / 1000 }, events: {} },
    compressor: compressorOf(bootstraps[0]),
  })
  log.info(`Chunkdict metadata is saved at: ${JSON.stringify(place)}`)
}

/** The original's words. */
function report(
  { bytes, chunkCount, unclustered, tooSmall, unknown }: Awaited<ReturnType<typeof generateDictionary>>,
  log: Log,
): void {
  log.info(`All chunk size is ${mebibytes(bytes.all)}`)
  log.info(`Train set size is ${mebibytes(bytes.train)}`)
  log.info(`Test set size is ${mebibytes(bytes.test)}`)
  log.info(
    `After deduplicating test set size is ${mebibytes(bytes.missed)} and deduplicating rate is ${1 - bytes.missed / bytes.test} `,
  )
  log.info(`Chunkdict size is ${mebibytes(bytes.selected)}`)
  log.info(`The length of chunkdict is ${chunkCount}`)
  log.info('It is not recommended to use image deduplication')
  for (const image of unclustered) log.info(image)
  for (const id of tooSmall) process.stderr.write(`Warning: Blob with id '${id}' is smaller than 4096 bytes.\n`)
  for (const id of unknown)
    log.warn(`blob ${id} is left out: the database does not have all its chunks, and none of the sources has it`)
}

function mebibytes(bytes: number): number {
  return bytes / 1024 / 1024
}

async function openAll(
  sources: readonly string[],
  signal: AbortSignal,
): Promise<Array<{ readonly name: string; readonly bootstrap: Bootstrap }>> {
  const opened: Array<{ readonly name: string; readonly bootstrap: Bootstrap }> = []
  for (const name of sources) {
    signal.throwIfAborted()
    opened.push({ name, bootstrap: await openBootstrapFile(name) })
  }
  if (opened.some(({ bootstrap }) => bootstrap.version !== opened[0]?.bootstrap.version)) {
    for (const { name, bootstrap } of opened)
      process.stdout.write(`Bootstrap path ${JSON.stringify(name)} has version V${bootstrap.version}\n`)
    throw new ExitError(1, 'Bootstrap versions are inconsistent, cannot use chunkdict.')
  }
  for (const { name, bootstrap } of opened) {
    const nameless = bootstrap.blobs.find(({ id }) => id === blobIdOf(name) && !/^[0-9a-f]{64}$/.test(id))
    if (nameless !== undefined)
      throw new ExitError(
        1,
        `${name} came out of its blob and does not tell the blob's id; merge it, which gives it one`,
      )
  }
  return opened
}

/** Image and version, as the name of the bootstrap's folder tells them: `registry:5000:library:app:1` is version 1 of `app`. */
function releaseOf(path: string): { readonly image: string; readonly version: string } {
  const folder = dirname(path)
  const name = basename(folder)
  if (name === '' || name === '.' || name === '..') throw new ExitError(1, 'Invalid Bootstrap directory name')
  const parts = name.split(':')
  const [image, version] = [parts.at(-2), parts.at(-1)]
  if (image === undefined || version === undefined)
    throw new ExitError(1, 'Invalid image name None', {
      cause: new Error(`the folder of ${path} is not called IMAGE:VERSION`),
    })
  return { image, version }
}

function databasePath(url: string): string {
  const [scheme, path, more] = url.split('://')
  if (path === undefined || more !== undefined || !/^[/:]/.test(path))
    throw new ExitError(1, `Invalid database URL: ${url}`)
  if (scheme !== 'sqlite')
    throw new ExitError(
      1,
      `Unsupported database type: ${scheme}, please use a valid database URI, such as 'sqlite:///path/to/chunkdict.db'.`,
    )
  if (path.startsWith(':') && path !== ':memory:') throw new ExitError(1, `Invalid database URL: ${url}`)
  return path
}
