import type { Command } from 'commander'
import { buildImage, type BuiltImage, openDictionary, openParent } from '../../builder/index.ts'
import { createOutput, PROGRESS_MODES } from '../output.ts'
import { createCommand, operand, valueOption } from './arguments.ts'
import { canonicalType, checkPlaces, checkUsage, checkValues, chunkDictPath, type CreateFlags, isDirectory, layerOptions, osError, refuseUnsupported, SOURCE_TYPES } from './create-options.ts'
import { openLog } from './log.ts'
import { readPatterns } from './prefetch-input.ts'
import { writeResult } from './result.ts'

const EXAMPLES = `
Examples:
  # a directory: blob and bootstrap into ./out, each named by its digest
  nydus-image create -D out /path/to/rootfs
  # a layer, as a converter does: one blob that carries its bootstrap and a table of contents
  zcat layer.tar.gz | nydus-image create -t tar-rafs --blob-inline-meta --features blob-toc -b layer.blob -

Tars may be plain, gzip or zstd, from a file, a FIFO or stdin ("-"); what they are is told by their first bytes.
Exit codes: 0 done, 1 failed, 2 wrong command line.`

export function createImageCommand(signal: AbortSignal): Command {
  const command = createCommand('create', 'Create RAFS filesystems from directories, tar files or OCI images')
  command.addArgument(operand('SOURCE', 'source from which to build the RAFS filesystem'))
  for (const option of [
    valueOption('-t, --type, --source-type <type>', 'Conversion type: [default: dir-rafs]', SOURCE_TYPES).default('dir-rafs'),
    valueOption('-B, --bootstrap <path>', 'File path to save the generated RAFS metadata blob'),
    valueOption('-D, --blob-dir <path>', 'Directory path to save generated RAFS metadata and data blobs'),
    valueOption('-b, --blob <path>', 'File path to save the generated RAFS data blob; an existing FIFO is written to'),
  ]) command.addOption(option)
  addLayoutOptions(command)
  addContentOptions(command)
  command.addHelpText('after', EXAMPLES)
  command.action(async (source: string, flags: CreateFlags) => {
    checkUsage(command, flags)
    await create(source, flags, signal)
  })
  return command
}

function addLayoutOptions(command: Command): void {
  for (const option of [
    valueOption('--external-blob <path>', 'File path to save the generated RAFS external blob (not supported)'),
    valueOption('--blob-id <id>', 'OSS object id for the generated RAFS data blob'),
    valueOption('--blob-data-size <hex>', "Set data blob size for 'estargztoc-ref' conversion (not supported)"),
    valueOption('--blob-offset <bytes>', 'Offset at which the data starts (not supported)').hideHelp(),
    valueOption('--chunk-size <size>', 'Set the size of data chunks, must be power of two and between 0x1000-0x1000000: [default: 0x100000]'),
    valueOption('--batch-size <size>', 'Set the batch size to merge small chunks, must be power of two, between 0x1000-0x1000000 or be zero: [default: 0] (not supported)').default('0'),
    valueOption('--compressor <algorithm>', 'Algorithm to compress data chunks: [default: zstd]', ['none', 'lz4_block', 'zstd']).default('zstd'),
    valueOption('--digester <algorithm>', 'Algorithm to digest data chunks: [default: blake3]', ['blake3', 'sha256']).default('blake3'),
    valueOption('-C, --config <path>', 'Configuration file for storage backend, cache and RAFS FUSE filesystem.'),
    valueOption('-v, --fs-version <version>', 'Set RAFS format version number: [default: 6]', ['5', '6']).default('6'),
    valueOption('--features <feature>', 'Enable/disable features', ['blob-toc']),
  ]) command.addOption(option)
  command.option('--blob-inline-meta, --inline-bootstrap', 'Inline RAFS metadata and blob metadata into the data blob')
}

function addContentOptions(command: Command): void {
  for (const option of [
    valueOption('--chunk-dict <path>', 'File path of chunk dictionary for data deduplication: PATH or bootstrap=PATH'),
    valueOption('--parent-bootstrap <path>', 'File path of the parent/referenced RAFS metadata blob (optional)'),
    valueOption('--whiteout-spec <spec>', 'Set the type of whiteout specification: [default: oci]', ['oci', 'overlayfs', 'none']).default('oci'),
    valueOption('--prefetch-policy <policy>', 'Set data prefetch policy; patterns are read from stdin, one absolute path a line [default: none]', ['fs', 'blob', 'none']).default('none'),
    valueOption('-J, --output-json <path>', 'File path to save operation result in JSON format'),
    valueOption('--blob-cache-dir <path>', 'Directory path to generate blob cache files ($id.blob.meta and $id.blob.data) (not supported)'),
    valueOption('--attributes <path>', 'Nydus attributes file path (usually .nydusattributes file) (not supported)'),
    valueOption('--progress <mode>', 'Progress on stderr [default: none]', PROGRESS_MODES).default('none'),
  ]) command.addOption(option)
  command.option('--aligned-chunk', 'Align uncompressed data chunks to 4K, only for RAFS V5')
  command.option('--repeatable', 'Generate reproducible RAFS metadata: owners become 0:0')
  command.option('-E, --encrypt', 'Encrypt the generated RAFS metadata and data blobs (not supported)')
  command.option('--disable-check', 'Ignored').hideDisableCheck?.()
}

async function create(source: string, flags: CreateFlags, signal: AbortSignal): Promise<void> {
  const log = openLog(flags.logLevel ?? 'info', flags.logFile)
  try {
    const patterns = await readPatterns(flags.prefetchPolicy)
    for (const warning of patterns.warnings) log.warn(warning)
    const chunkSize = checkValues(flags)
    checkPlaces(flags, source)
    refuseUnsupported(flags)
    const options = layerOptions(flags, chunkSize, patterns)
    const dictionary = flags.chunkDict === undefined ? undefined : await openDictionary(chunkDictPath(flags.chunkDict), options)
    const parent = flags.parentBootstrap === undefined ? undefined : await openParent(flags.parentBootstrap, options)
    const progress = createOutput(flags.progress).progress('building', { total: 0, unit: 'bytes' })
    try {
      const built = await buildImage(canonicalType(flags) === 'dir-rafs' ? { kind: 'directory', path: source } : { kind: 'tar', path: source }, {
        blob: flags.blob === undefined ? { kind: 'directory', path: flags.blobDir ?? '.' } : { kind: 'file', path: flags.blob },
        bootstrap: flags.bootstrap === undefined ? (flags.blobInlineMeta === true ? undefined : { kind: 'directory', path: flags.blobDir ?? '.' }) : { kind: 'file', path: flags.bootstrap },
      }, { ...options, dictionary, parent }, { signal, onBytes: (bytes) => progress.advance(bytes) })
      log.info(summary(built))
      await writeResult(flags.outputJson, { ...built, compressor: flags.compressor })
    } finally {
      progress.done()
    }
  } finally {
    log.close()
  }
}

/** The original's last words. */
export function summary(built: Pick<BuiltImage, 'bootstrapPath' | 'blobs' | 'blobSize'>): string {
  return `successfully built RAFS filesystem: \nmeta blob path: ${built.bootstrapPath ?? '<none>'}\ndata blob size: 0x${built.blobSize.toString(16)}\ndata blobs: [${built.blobs.map((id) => JSON.stringify(id)).join(', ')}]`
}
