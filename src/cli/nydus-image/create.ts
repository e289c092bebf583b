import { type Command, Option } from 'commander'
import { setRules, valueOption } from '../command-rules.ts'
import { addProgressOption, createCommand } from './arguments.ts'
import type { CreateFlags } from './create-options.ts'

const SOURCE_TYPES = [
  'directory',
  'dir-rafs',
  'estargz-rafs',
  'estargz-ref',
  'estargztoc-ref',
  'tar-rafs',
  'tar-tarfs',
  'targz-rafs',
  'targz-ref',
  'stargz_index',
]

const EXAMPLES = `
Examples:
  # a directory: blob and bootstrap into ./out, each named by its digest
  nydus-image create -D out rootfs
  # a layer, as a converter does: one blob that carries its bootstrap and a table of contents
  zcat layer.tar.gz | nydus-image create -t tar-rafs --blob-inline-meta --features blob-toc -b layer.blob -

Tars may be plain, gzip or zstd, from a file, a FIFO or stdin ("-"); what they are is told by their first bytes.
Exit codes: 0 done, 1 failed, 2 wrong command line.`

/** `create`: flags, one call. */
export function createImageCommand(signal: AbortSignal): Command {
  const command = createCommand('create', 'Create RAFS filesystems from directories, tar files or OCI images')
  command.argument('<SOURCE>', 'source from which to build the RAFS filesystem')
  addOutputOptions(command)
  addFormatOptions(command)
  addContentOptions(command)
  addProgressOption(command)
  command.addHelpText('after', EXAMPLES)
  setRules(command, {
    conflicts: [
      ['--bootstrap', '--blob-inline-meta'],
      ['--blob-inline-meta', '--blob-id'],
      ['--blob-dir', '--blob-cache-dir'],
      ['--blob', '--blob-cache-dir'],
      ['--blob-inline-meta', '--blob-cache-dir'],
      ['--compressor', '--blob-cache-dir'],
    ],
    lacking: (has, valueOf) => {
      const hasPlace = has('--bootstrap') || has('--blob-dir') || has('--blob-inline-meta')
      const needsId = ['estargztoc-ref', 'stargz_index'].includes(valueOf('--type') ?? '')
      return [...(hasPlace ? [] : ['--bootstrap']), ...(needsId && !has('--blob-id') ? ['--blob-id'] : [])]
    },
  })
  command.action(async (source: string, flags: CreateFlags) => {
    const { createImage } = await import('./create-image.ts')
    await createImage(source, flags, signal)
  })
  return command
}

function addOutputOptions(command: Command): void {
  command
    .addOption(
      valueOption(
        '-t, --type <type>',
        'Conversion type, also --source-type: [default: dir-rafs]',
        SOURCE_TYPES,
      ).default('dir-rafs'),
    )
    .addOption(valueOption('-B, --bootstrap <path>', 'File path to save the generated RAFS metadata blob'))
    .addOption(valueOption('-D, --blob-dir <path>', 'Directory path to save generated RAFS metadata and data blobs'))
    .addOption(
      valueOption(
        '-b, --blob <path>',
        'File path to save the generated RAFS data blob; an existing FIFO is written to',
      ),
    )
    .option('--blob-inline-meta', 'Inline RAFS metadata and blob metadata into the data blob, also --inline-bootstrap')
    .addOption(valueOption('--blob-id <id>', 'Id of the generated RAFS data blob instead of its digest'))
    .addOption(valueOption('-J, --output-json <path>', 'File path to save operation result in JSON format'))
    .addOption(valueOption('--external-blob <path>', 'File path to save the generated RAFS external blob'))
    .addOption(
      valueOption(
        '--blob-cache-dir <path>',
        'Directory path to generate blob cache files ($id.blob.meta, $id.blob.data and its chunk map), and no blob',
      ),
    )
}

function addFormatOptions(command: Command): void {
  const size = 'must be power of two and between 0x1000-0x1000000'
  command
    .addOption(valueOption('-v, --fs-version <version>', 'RAFS format version: [default: 6]', ['5', '6']).default('6'))
    .addOption(valueOption('--chunk-size <size>', `Set the size of data chunks, ${size}: [default: 0x100000]`))
    .addOption(
      valueOption('--compressor <algorithm>', 'Algorithm to compress data chunks: [default: zstd]', [
        'none',
        'lz4_block',
        'zstd',
      ]).default('zstd'),
    )
    .addOption(
      valueOption('--digester <algorithm>', 'Algorithm to digest data chunks: [default: blake3]', [
        'blake3',
        'sha256',
      ]).default('blake3'),
    )
    .addOption(
      valueOption('--features <feature>', 'Add a table of contents and chunk digests to the blob', ['blob-toc']),
    )
    .option('--repeatable', 'Generate reproducible RAFS metadata: owners become 0:0')
    .option('--aligned-chunk', 'Align uncompressed data chunks to 4K (RAFS v6 always does)')
    .addOption(
      valueOption(
        '--batch-size <size>',
        'Store the chunks of small files together, up to this size; 0 or a power of two from 0x1000 to the chunk size: [default: 0]',
      ).default('0'),
    )
    .addOption(valueOption('--blob-data-size <hex>', "Size of the eStargz layer in hexadecimal, for 'estargztoc-ref'"))
    .addOption(
      valueOption('--blob-offset <bytes>', 'Bytes that will lie before the blob in the file that is read').hideHelp(),
    )
    .option('-E, --encrypt', 'Encrypt the data blob (AES-128-XTS); its key is in the bootstrap')
}

function addContentOptions(command: Command): void {
  command
    .addOption(
      valueOption('--chunk-dict <path>', 'Bootstrap whose chunks are not stored again: PATH or bootstrap=PATH'),
    )
    .addOption(valueOption('--parent-bootstrap <path>', 'Bootstrap of the image that this layer is laid over'))
    .addOption(
      valueOption('--whiteout-spec <spec>', 'How SOURCE marks deletions: [default: oci]', [
        'oci',
        'overlayfs',
        'none',
      ]).default('oci'),
    )
    .addOption(
      valueOption(
        '--prefetch-policy <policy>',
        'Data to have first; patterns are read from stdin, one absolute path a line: [default: none]',
        ['fs', 'blob', 'none'],
      ).default('none'),
    )
    .addOption(valueOption('-C, --config <path>', 'Configuration file of nydusd; not needed, but it must be readable'))
    .addOption(
      valueOption(
        '--attributes <path>',
        'Nydus attributes file: which files of a directory are in external blobs (RAFS v5)',
      ),
    )
    // The original ignores it too: what was written is always read back.
    .addOption(new Option('--disable-check', 'Ignored').hideHelp())
}
