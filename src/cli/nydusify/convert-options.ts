import type { Command } from 'commander'
import { formatPlatform, hostPlatform } from '../../registry/index.ts'
import { onOff, progressOption, value } from './command.ts'

/** All flags of `convert`, the original's and a few of ours. */
export function addConvertOptions(command: Command): void {
  addImageFlags(command)
  addFormatFlags(command)
  addPlaceFlags(command)
  addLaterFlags(command)
}

function addImageFlags(command: Command): void {
  command
    .addOption(value('--source <reference>', 'Source OCI image reference', { env: 'SOURCE' }))
    .addOption(value('--target <reference>', 'Target (Nydus) image reference', { env: 'TARGET' }))
    .addOption(
      value('--target-suffix <suffix>', 'Target is the source reference with this suffix, conflicts with --target', {
        env: 'TARGET_SUFFIX',
      }),
    )
    .addOption(onOff('--source-insecure', 'Skip verifying server certs for HTTPS source registry', 'SOURCE_INSECURE'))
    .addOption(onOff('--target-insecure', 'Skip verifying server certs for HTTPS target registry', 'TARGET_INSECURE'))
    .addOption(onOff('--plain-http', 'Use plain HTTP for all registries', 'PLAIN_HTTP'))
    .addOption(
      value('--platform <list>', "Convert images for these platforms, for example: 'linux/amd64,linux/arm64'", {
        fallback: formatPlatform(hostPlatform()),
      }),
    )
    .addOption(onOff('--all-platforms', 'Convert images for all platforms'))
    .addOption(
      onOff(
        '--merge-platform',
        'Generate an OCI image index with both OCI and Nydus manifests for the image',
        'MERGE_PLATFORM',
      ),
    )
    .addOption(onOff('--multi-platform', 'The same as --merge-platform').hideHelp())
    .addOption(
      value('--graph-driver-tag <tag>', 'Also push the image as nydus-docker-graphdriver takes it (Docker up to 23)'),
    )
    .addOption(onOff('--oci', 'Convert Docker media types to OCI media types', 'OCI'))
    .addOption(onOff('--docker-v2-format', 'Deprecated: keeps Docker media types').hideHelp())
    .addOption(onOff('--with-referrer', 'Associate a reference to the source image (subject)', 'WITH_REFERRER'))
}

function addFormatFlags(command: Command): void {
  command
    .addOption(
      value('--fs-version <version>', 'Nydus image format version number: 6', { env: 'FS_VERSION', fallback: '6' }),
    )
    .addOption(
      value('--compressor <name>', 'Algorithm to compress image data blob: none, lz4_block, zstd', {
        env: 'COMPRESSOR',
        fallback: 'zstd',
      }),
    )
    .addOption(
      value('--chunk-size <bytes>', 'Size of data chunks, a power of two, 0x1000 to 0x1000000', {
        env: 'FS_CHUNK_SIZE',
        fallback: '0x100000',
      }),
    )
    .addOption(value('--fs-chunk-size <bytes>', 'The same as --chunk-size').hideHelp())
    .addOption(onOff('--fs-align-chunk', 'Chunks of RAFS v6 are aligned to 4 KiB always', 'FS_ALIGN_CHUNK'))
    .addOption(
      onOff('--backend-aligned-chunk', 'Deprecated: the same as --fs-align-chunk', 'BACKEND_ALIGNED_CHUNK').hideHelp(),
    )
    .addOption(
      value('--prefetch-dir <path>', 'An absolute path within the image for prefetch', { env: 'PREFETCH_DIR' }),
    )
    .addOption(
      onOff('--prefetch-patterns', 'Read prefetch list from STDIN, absolute paths line by line', 'PREFETCH_PATTERNS'),
    )
    .addOption(
      value('--chunk-dict <expression>', 'Chunks of this image are not stored again: bootstrap:registry:REFERENCE', {
        env: 'CHUNK_DICT',
      }),
    )
    .addOption(
      onOff('--chunk-dict-insecure', 'Skip verifying server certs for HTTPS dict registry', 'CHUNK_DICT_INSECURE'),
    )
}

function addPlaceFlags(command: Command): void {
  command
    .addOption(
      value('--work-dir <folder>', 'Blobs lie here until they are uploaded', { env: 'WORK_DIR', fallback: './tmp' }),
    )
    .addOption(
      value('--output-json <file>', 'File path to save the metrics collected during conversion in JSON format', {
        env: 'OUTPUT_JSON',
      }),
    )
    .addOption(
      value('--push-retry-count <count>', 'Number of retries when pushing to registry fails', {
        env: 'PUSH_RETRY_COUNT',
        fallback: '3',
      }),
    )
    .addOption(
      value('--push-retry-delay <duration>', 'Delay between push retries (5s, 1m, 1h)', {
        env: 'PUSH_RETRY_DELAY',
        fallback: '5s',
      }),
    )
    .addOption(progressOption())
    .addOption(
      value('--nydus-image <path>', 'Accepted and not needed: the builder is part of this program', {
        env: 'NYDUS_IMAGE',
      }),
    )
}

/** Known, and refused with a line that says so. */
function addLaterFlags(command: Command): void {
  for (const flags of [
    '--source-archive <file>',
    '--target-archive <file>',
    '--source-backend-type <type>',
    '--source-backend-config <json>',
    '--backend-type <type>',
    '--backend-config <json>',
    '--backend-config-file <file>',
    '--build-cache <reference>',
    '--build-cache-tag <tag>',
    '--build-cache-version <version>',
  ]) {
    command.addOption(value(flags, 'Not supported in this version').hideHelp())
  }
  command.addOption(
    value('--build-cache-max-records <count>', 'Not supported in this version', { fallback: '200' }).hideHelp(),
  )
  command.addOption(
    value('--batch-size <bytes>', 'Not supported in this version', { env: 'BATCH_SIZE', fallback: '0' }).hideHelp(),
  )
  for (const flags of ['--backend-force-push', '--build-cache-insecure', '--oci-ref', '--reverse'])
    command.addOption(onOff(flags, 'Not supported in this version').hideHelp())
}
