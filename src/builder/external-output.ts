import { createHash } from 'node:crypto'
import { join, parse } from 'node:path'
import { inlinedBootstrap } from '../blob/index.ts'
import { writeWhole } from './artifact.ts'
import type { ImagePlaces, ImageSource } from './build-image.ts'
import type { ExternalTree } from './build-layer.ts'
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

/** The original's name: the extension is replaced. */
function externalPath(path: string): string {
  const { dir, name } = parse(path)
  return join(dir, `${name}.external`)
}

export async function publishExternal(
  { bootstrap, blobs }: ExternalTree,
  places: ImagePlaces,
): Promise<ExternalOutput> {
  const place = places.bootstrap
  const ids = blobs.map(({ id }) => id)
  if (places.externalBlob !== undefined)
    await writeWhole(places.externalBlob, place === undefined ? inlinedBootstrap(bootstrap) : new Uint8Array(0))
  if (place === undefined) return { bootstrapPath: undefined, blobs: ids }
  const digest = createHash('sha256').update(bootstrap).digest('hex')
  const path = place.kind === 'file' ? externalPath(place.path) : join(place.path, `${digest}.external`)
  await writeWhole(path, bootstrap)
  return { bootstrapPath: path, blobs: ids }
}
