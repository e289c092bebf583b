import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { parsePrefetchPatterns } from '../../builder/index.ts'
import { type Platform, hostPlatform, parsePlatform } from '../../registry/index.ts'
import { chunkSizeOf, compressorOf } from '../nydusify/convert-flags.ts'
import { onOff, value } from '../nydusify/command.ts'
import { ExitError } from '../output.ts'

/** Flags that say what kind of Nydus image is made. */
export interface ImageFlags {
  readonly oci?: boolean
  readonly platform?: readonly string[]
  readonly allPlatforms?: boolean
  readonly nydusWorkDir?: string
  readonly nydusCompressor: string
  readonly nydusChunkSize: string
  readonly prefetchList?: string
}

const MANY = (given: string, before: readonly string[] = []): readonly string[] => [...before, given]

export function addImageFlags(command: Command): Command {
  return command
    .addOption(onOff('--oci', 'convert Docker media types to OCI media types'))
    .addOption(value('--platform <os/arch>', 'convert for a specific platform; default: this machine').argParser(MANY))
    .addOption(onOff('--all-platforms', 'convert for all platforms; all must be in the store'))
    .addOption(value('--nydus-compressor <name>', 'none, lz4_block or zstd', { fallback: 'zstd' }))
    .addOption(value('--nydus-chunk-size <bytes>', 'power of two, decimal or 0x…', { fallback: '0x100000' }))
    .addOption(value('--nydus-work-dir <folder>', 'blobs lie here until they are in the store; default: a new one'))
    .addOption(value('--prefetch-list <file>', 'paths that nodes fetch first, a line each; # starts a remark'))
}

/** What the flags mean. Throws ExitError. */
export function imageSettings(flags: ImageFlags): {
  readonly platforms: readonly Platform[] | 'all'
  readonly compression: ReturnType<typeof compressorOf>
  readonly chunkSize: number
  readonly toOci: boolean
} {
  const named = (flags.platform ?? []).flatMap((text) => text.split(',')).filter((text) => text !== '')
  return {
    platforms: flags.allPlatforms === true ? 'all' : named.length === 0 ? [hostPlatform()] : named.map(parsePlatform),
    compression: compressorOf({ compressor: flags.nydusCompressor }),
    chunkSize: chunkSizeOf({ chunkSize: flags.nydusChunkSize }),
    toOci: flags.oci === true,
  }
}

/** Paths of a list; `fallback` without one. */
export function prefetchPaths(text: Uint8Array | undefined, warn: (line: string) => void): readonly string[] {
  const { paths, warnings } = parsePrefetchPatterns(text ?? Buffer.from('/'))
  for (const warning of warnings) warn(warning)
  return paths
}

/** The file of --prefetch-list without its remarks. Throws ExitError. */
export function readPrefetchList(path: string): Buffer {
  try {
    const lines = readFileSync(path, 'latin1').split('\n')
    const kept = lines.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'))
    return Buffer.from(kept.map((line) => `${line}\n`).join(''), 'latin1')
  } catch (cause) {
    throw new ExitError(1, `failed to open prefetch list file: ${(cause as Error).message}`, { cause })
  }
}
