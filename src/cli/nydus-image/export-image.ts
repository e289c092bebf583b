import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Backend } from '../../backend/index.ts'
import { exportDisk } from '../../builder/index.ts'
import { createOutput, ExitError, type ProgressMode } from '../output.ts'
import { flatView } from '../../rafs/index.ts'
import type { CommonFlags } from './arguments.ts'
import { openBackend } from './blob-source.ts'
import { readNamedImage } from './bootstrap-file.ts'
import { UsageError } from '../command-line.ts'
import { withLog } from './log.ts'
import { osError } from '../os-error.ts'

/** Values of `export`'s options, as the parser gives them. */
export interface ExportFlags extends CommonFlags {
  readonly bootstrap?: string
  readonly config?: string
  readonly localfsDir?: string
  readonly threads?: string
  readonly output?: string
  readonly verity?: boolean
  readonly progress: ProgressMode
}

const FAILED = 'failed to export RAFS filesystem as raw block device image'

/** `export --block`: the image as a disk; with --verity one line on stdout, and nothing before it. */
export async function exportImageFile(flags: ExportFlags, signal: AbortSignal): Promise<void> {
  checkThreads(flags.threads ?? '4')
  await withLog(flags, async () => {
    const { bootstrap, backend } = await sourceOf(flags)
    const progress = createOutput(flags.progress).progress('exporting', { total: 0, unit: 'bytes' })
    try {
      const path = flags.output ?? join(flags.localfsDir ?? '.', `${basename(bootstrap)}.disk`)
      const { image, bytes } = await readNamedImage(undefined, bootstrap)
      const verity = flags.verity === true
      const { blocks, blockSize } = flatView(bytes, image)
      progress.setTotal(blocks * blockSize)
      const onBytes = (done: number): void => progress.advance(done)
      const disk = await exportDisk(image, bytes, backend, { path, verity, signal, onBytes })
      if (disk.verity !== undefined) process.stdout.write(verityLine(disk.blockSize, disk.blocks, disk.verity))
    } catch (cause) {
      signal.throwIfAborted()
      throw new ExitError(1, FAILED, { cause })
    } finally {
      progress.done()
      await backend.close()
    }
  })
}

/** Programs look for exactly this. */
function verityLine(blockSize: number, blocks: number, of: { hashOffset: number; rootHash: string }): string {
  const options = `--no-superblock --format=1 -s "" --hash=sha256 --data-block-size=${blockSize} --hash-block-size=4096`
  return `dm-verity options: ${options} --data-blocks ${blocks} --hash-offset ${of.hashOffset} ${of.rootHash}\n`
}

function checkThreads(text: string): void {
  const threads = /^\+?[0-9]+$/.test(text) ? Number(text) : Number.NaN
  if (threads >= 1 && threads <= 1024) return
  const problem = Number.isNaN(threads)
    ? 'invalid digit found in string'
    : `invalid thread number ${text}, valid range: [1-1024]`
  throw new UsageError(`invalid value '${text}' for '--threads <threads>': ${problem}`, '')
}

async function sourceOf(flags: ExportFlags): Promise<{ readonly bootstrap: string; readonly backend: Backend }> {
  const { bootstrap, localfsDir, config } = flags
  if (config !== undefined) return await entryOf(config)
  const backend = await openBackend({ blobDir: localfsDir ?? '' })
  if (backend === undefined || bootstrap === undefined)
    throw new ExitError(1, 'both option `-C/--config` and `-D/--localfs-dir` are missing')
  return { bootstrap, backend }
}

/** A `BlobCacheEntry`, as nydusd's API takes it: `config_v2`, or in `config` the older form with `backend_type`. */
async function entryOf(path: string): Promise<{ readonly bootstrap: string; readonly backend: Backend }> {
  const bad = (why: string): ExitError =>
    new ExitError(1, 'invalid blob cache entry configuration information', { cause: new Error(`${path}: ${why}`) })
  let entry: unknown
  try {
    entry = JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    throw bad(osError(error))
  }
  if (!isTable(entry) || entry['type'] !== 'bootstrap') throw bad('its "type" is not "bootstrap"')
  const config = entry['config_v2'] ?? entry['config']
  if (!isTable(config)) throw bad('it has neither "config_v2" nor "config"')
  const bootstrap = config['metadata_path']
  if (typeof bootstrap !== 'string' || bootstrap === '') throw bad('its "metadata_path" is missing')
  const type = config['backend_type']
  const backend = config['backend'] ?? { type, [String(type)]: config['backend_config'] }
  const { parseConfig, blobSourceOf, openSource } = await import('../../daemon/config/index.ts')
  const parsed = parseConfig(JSON.stringify({ version: 2, backend }), path)
  return { bootstrap, backend: openSource(blobSourceOf(parsed.config)).backend }
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
