import type { Dirent } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { extname, join, resolve } from 'node:path'
import { type DictionaryFigures, type ImageFigures, ImageStatistics, writeWhole } from '../../builder/index.ts'
import type { DigestName } from '../../codec/index.ts'
import { RafsError } from '../../rafs/index.ts'
import { createOutput, ExitError, type ProgressMode } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { checkConfig } from './blob-source.ts'
import { ImageError, openBootstrapFile, openNamedImage } from './bootstrap-file.ts'
import { type Log, withLog } from './log.ts'
import { osError } from '../os-error.ts'

/** Values of `stat`'s options, as the parser gives them. */
export interface StatFlags extends CommonFlags {
  readonly bootstrap?: string
  readonly blobDir?: string
  readonly target?: string
  readonly config?: string
  readonly digester: DigestName
  readonly outputJson?: string
  readonly progress: ProgressMode
}

/** `stat`: figures of images, as JSON or as the original's report. */
export async function statImages(flags: StatFlags, signal: AbortSignal): Promise<void> {
  await withLog(flags, async (log) => {
    await checkConfig(flags.config)
    const progress = createOutput(flags.progress).progress('counting paths', { total: 0, unit: 'items' })
    try {
      const statistics = new ImageStatistics(flags.digester, () => progress.advance(1))
      await countAndTell(statistics, { flags, log, signal })
    } finally {
      progress.done()
    }
  })
}

interface Run {
  readonly flags: StatFlags
  readonly log: Log
  readonly signal: AbortSignal
}

async function countAndTell(statistics: ImageStatistics, run: Run): Promise<void> {
  const { flags } = run
  if (flags.bootstrap !== undefined) await add(statistics, 'addBase', flags.bootstrap, run)
  else if (flags.blobDir !== undefined) await addFolder(statistics, flags.blobDir, run)
  else throw new ExitError(1, 'one of `--bootstrap` and `--blob-dir` must be specified')
  if (flags.target !== undefined) await add(statistics, 'addTarget', flags.target, run)
  const isDeduplicated = flags.bootstrap === undefined
  if (isDeduplicated) statistics.countDeduplicated()
  if (flags.outputJson === undefined) process.stdout.write(report(statistics, flags, isDeduplicated))
  else await writeJson(flags.outputJson, statistics, flags, isDeduplicated)
}

async function add(
  statistics: ImageStatistics,
  how: 'addBase' | 'addTarget',
  path: string,
  { flags: { config }, signal }: Run,
): Promise<void> {
  const image = config === undefined ? await openBootstrapFile(path) : await openNamedImage(path, undefined)
  try {
    await statistics[how](image, signal)
  } catch (error) {
    if (!(error instanceof RafsError)) throw error
    const cause = new Error(`${path}: ${error.message}`)
    throw new ImageError('failed to load bootstrap for stats', { cause, isOther: false })
  }
}

/** All files whose names have no extension; what is no image is passed over, as in the original. A damaged image is passed over too, and told. */
async function addFolder(statistics: ImageStatistics, folder: string, run: Run): Promise<void> {
  const { flags, log, signal } = run
  const names = (await entriesOf(folder)).map(({ name }) => name).sort()
  for (const name of names) {
    signal.throwIfAborted()
    const path = join(folder, name)
    const isTarget = flags.target !== undefined && resolve(path) === resolve(flags.target)
    if (isTarget || extname(name) !== '' || !(await isFile(path))) continue
    try {
      await add(statistics, 'addBase', path, run)
    } catch (error) {
      if (!(error instanceof ImageError)) throw error
      if (!error.isOther) log.warn(`an image is left out: ${(error.cause as Error).message}`)
    }
  }
}

async function entriesOf(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true })
  } catch (error) {
    throw new ExitError(1, `failed to access path ${JSON.stringify(folder)}`, { cause: new Error(osError(error)) })
  }
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false // a link to nothing
    throw error
  }
}

async function writeJson(
  path: string,
  { base, target }: ImageStatistics,
  flags: StatFlags,
  isDeduplicated: boolean,
): Promise<void> {
  const json = {
    dedup_enabled: isDeduplicated,
    target_enabled: flags.target !== undefined,
    base_image: base,
    target_image: target,
  }
  try {
    await writeWhole(path, Buffer.from(JSON.stringify(json)))
  } catch (cause) {
    throw new ExitError(1, `Output file ${JSON.stringify(path)} can't be opened`, { cause })
  }
}

function report(statistics: ImageStatistics, flags: StatFlags, isDeduplicated: boolean): string {
  const target = flags.target === undefined ? '' : `Target Image Statistics:\n${describe(statistics.target)}`
  const dictionaries = isDeduplicated ? describeDictionaries(statistics.dictionaries()) : ''
  return `${target}\n\nBase Image Statistics:\n${describe(statistics.base)}${dictionaries}`
}

function describe(of: ImageFigures): string {
  const rows: ReadonlyArray<readonly [string, number]> = [
    ['Directories:', of.dirs],
    ['Files:', of.files],
    ['Symlinks:', of.symlinks],
    ['Chunks:', of.chunks],
    ['File Size:', of.file_size],
    ['Padding Size:', of.padding_size],
    ['Uncompressed Size:', of.uncomp_size],
    ['Compressed Size:', of.comp_size],
  ]
  const sums: ReadonlyArray<readonly [string, number]> = [
    ['Raw Content Size', of.file_size],
    ['Comp Content Size', of.comp_size],
    ['Raw Chunk Count', of.chunks],
    ['Dedup Comp Size', of.dedup_comp_size],
    ['Dedup Uncomp Size', of.dedup_uncomp_size],
    ['Dedup Chunk Count', of.dedup_chunks],
    ['Owned Comp Size', of.own_comp_size],
    ['Owned Uncomp Size', of.own_uncomp_size],
    ['Owned Chunk Count', of.own_chunks],
    ['Referenced Comp Size', of.ref_comp_size],
    ['Referenced Uncomp Size', of.ref_uncomp_size],
    ['Referenced Chunk Count', of.ref_chunks],
  ]
  return [
    '',
    ...rows.map(([name, value]) => `${name.padEnd(24)}${value}`),
    '\nFile Size Bits:\t\tFile Count:',
    ...of.file_sizes.map((count, bits) => `${bits}:\t\t\t${count}`),
    '\nChunk Size Bits:\tChunk Count:',
    ...of.chunk_sizes.map((count, i) => `${i + 12}:\t\t\t${count}`),
    '',
    ...sums.map(([name, value]) => `${name}:\t${value}`),
    '',
  ].join('\n')
}

const DICTIONARY_HEADER =
  'Global Dedup Thresh:\tRaw Chunks:\tDedup Chunks:\tComp Content Size:\tComp Base Size:\tComp Image Size:\tUncomp Content Size:\tUncomp Base Size\tUncomp Image Size'

function describeDictionaries(rows: readonly DictionaryFigures[]): string {
  const lines = rows.map((row, i) => {
    const values = [
      row.rawChunks,
      row.dedupChunks,
      row.compContent,
      row.compBase,
      row.compImage,
      row.uncompContent,
      row.uncompBase,
      row.uncompImage,
    ]
    return `${String(i + 1).padEnd(24)}${values.map((value) => `0x${value.toString(16).padEnd(14)}`).join('')}\n`
  })
  return `\n\nChunk Deduplication Statistics:\n${DICTIONARY_HEADER}\n${lines.join('')}`
}
