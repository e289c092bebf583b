import { writeWhole } from '../../builder/index.ts'
import type { BlobInfo } from '../../blob/index.ts'
import { ExitError } from '../output.ts'
import { osError } from '../os-error.ts'
import { toolVersion } from './version.ts'

/** What a command did, for programs. */
export interface Result {
  readonly bootstrapPath: string | undefined
  readonly blobs: readonly string[]
  readonly external?: { readonly bootstrapPath: string | undefined; readonly blobs: readonly string[] } | undefined
  readonly fsVersion?: 5 | 6
  readonly trace: {
    readonly consumedTime: Readonly<Record<string, number>>
    readonly events: Readonly<Record<string, number | string>>
  }
  readonly compressor: string
}

/** The original's last words after `create` and `merge`. */
export function summary(
  built: Pick<Result, 'bootstrapPath' | 'blobs' | 'external'> & { readonly blobSize: number },
): string {
  return [
    'successfully built RAFS filesystem: ',
    `meta blob path: ${built.bootstrapPath ?? '<none>'}`,
    `data blob size: 0x${built.blobSize.toString(16)}`,
    `data blobs: ${listOf(built.blobs)}`,
    ...externalLines(built.external),
  ].join('\n')
}

function externalLines(external: Result['external']): string[] {
  if (external === undefined || external.blobs.length === 0) return []
  const path = `external meta blob path: ${external.bootstrapPath ?? '<none>'}`
  return [path, `external data blobs: ${listOf(external.blobs)}`]
}

function listOf(ids: readonly string[]): string {
  return `[${ids.map((id) => JSON.stringify(id)).join(', ')}]`
}

/** An image's compressor, as its first blob tells it. */
export function compressorOf(image: { readonly blobs: readonly BlobInfo[] } | undefined): string {
  return image?.blobs[0]?.compression ?? 'zstd'
}

/** Writes `--output-json`: the original's members in its order; with two spaces, or (after `check`) on one line. */
export async function writeResult(path: string | undefined, result: Result, indent = 2): Promise<void> {
  if (path === undefined) return
  const json = {
    version: toolVersion(),
    bootstrap: result.bootstrapPath ?? '',
    blobs: result.blobs,
    external_bootstrap: result.external?.bootstrapPath ?? '',
    external_blobs: result.external?.blobs ?? [],
    trace: { consumed_time: result.trace.consumedTime, registered_events: result.trace.events },
    fs_version: String(result.fsVersion ?? 6),
    compressor: result.compressor,
  }
  try {
    await writeWhole(path, Buffer.from(JSON.stringify(json, undefined, indent)))
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
    throw new ExitError(1, `can not open output file ${path}`, { cause: new Error(osError(cause)) })
  }
}
