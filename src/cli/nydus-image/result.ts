import { writeWhole } from '../../builder/index.ts'
import { ExitError } from '../output.ts'
import { osError } from './create-options.ts'
import { toolVersion } from './version.ts'

export interface Result {
  readonly bootstrapPath: string | undefined
  readonly blobs: readonly string[]
  readonly trace: { readonly consumedTime: Readonly<Record<string, number>>; readonly events: Readonly<Record<string, number | string>> }
  readonly compressor: string
}

/** The original's JSON, its members in its order. */
export function resultJson(result: Result): Record<string, unknown> {
  return {
    version: toolVersion(),
    bootstrap: result.bootstrapPath ?? '',
    blobs: result.blobs,
    external_bootstrap: '',
    external_blobs: [],
    trace: { consumed_time: result.trace.consumedTime, registered_events: result.trace.events },
    fs_version: '6',
    compressor: result.compressor,
  }
}

/** Writes `--output-json`, with two spaces as the original does. */
export async function writeResult(path: string | undefined, result: Result): Promise<void> {
  if (path === undefined) return
  await writeJson(path, JSON.stringify(resultJson(result), undefined, 2))
}

export async function writeJson(path: string, text: string): Promise<void> {
  try {
    await writeWhole(path, Buffer.from(text))
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
    throw new ExitError(1, `can not open output file ${path}`, { cause: new Error(osError(cause)) })
  }
}
