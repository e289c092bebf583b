import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { ImageConfig } from '../src/registry/index.ts'
import { plainPull } from './plain-pull.ts'
import type { Undo } from './undo.ts'
import { mountWritable } from './writable.ts'

export interface EagerWanted {
  /** Of a registry that speaks plain HTTP. */
  readonly reference: string
  /** An empty folder. */
  readonly directory: string
  readonly undo: Undo
  readonly signal: AbortSignal
  readonly onProgress: (downloadedBytes: number, totalBytes: number) => void
}

export interface EagerRoot {
  readonly root: string
  readonly config: ImageConfig
  /** Seconds from the call: until the last byte was there, until the last file was, until the root was mounted. */
  readonly timings: { readonly download: number; readonly unpack: number; readonly mounted: number }
}

/** Pulls the whole image and puts its layers on top of each other. */
export async function startEagerly(wanted: EagerWanted): Promise<EagerRoot> {
  const from = performance.now()
  const directory = join(wanted.directory, 'layers')
  await mkdir(directory)
  const { reference, signal, onProgress } = wanted
  const pulled = await plainPull({ reference, directory, signal, onProgress, client: { plainHttp: 'always' } })
  const root = await mountWritable(pulled.layers.toReversed(), join(wanted.directory, 'writable'), wanted.undo)
  return { root, config: pulled.config, timings: { ...pulled.timings, mounted: (performance.now() - from) / 1000 } }
}
