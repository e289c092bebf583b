import { join, parse } from 'node:path'
import type { ImagePlaces, ImageSource } from './build-image.ts'
import { BuilderError } from './errors.ts'
import type { LayerOptions } from './layer-options.ts'

/** What was written of external files. */
export interface ExternalOutput {
  /** Undefined when it is in the external blob. */
  readonly bootstrapPath: string | undefined
  readonly blobs: readonly string[]
}

/** What cannot work is told before anything is read. Throws BuilderError 'BAD_OPTION'. */
export function checkExternalPlaces(source: ImageSource, places: ImagePlaces, options: LayerOptions): void {
  const bad = (why: string): BuilderError => new BuilderError('BAD_OPTION', `attributes ${why}`)
  if (source.kind !== 'directory') throw bad('are for directories: `--type dir-rafs`')
  if (options.parent !== undefined) throw bad('cannot be used over a parent bootstrap')
  const { bootstrap, externalBlob } = places
  if (bootstrap === undefined && externalBlob === undefined)
    throw bad('and an inlined bootstrap need `--external-blob`, which the bootstrap of external files goes into')
  if (bootstrap?.kind === 'file' && externalPath(bootstrap.path) === bootstrap.path)
    throw bad(`need another name for the bootstrap than ${bootstrap.path}, which is that of the one of external files`)
}

/** Where the bootstrap of external files goes. The original's name: the extension is replaced. */
export function externalPath(path: string): string {
  const { dir, name } = parse(path)
  return join(dir, `${name}.external`)
}
