/** What is there before anybody starts a container: the image in a registry, and its Nydus twin beside it. */
import { join } from 'node:path'
import type { Output } from '../src/cli/output.ts'
import { anonymous, parseReference, RegistryClient } from '../src/registry/index.ts'
import { copyImage } from './copy-image.ts'
import { pushImage } from './image.ts'
import { planLayers } from './layers.ts'
import { nydusify } from './nydusify.ts'
import type { DemoResult } from './result.ts'

export interface PrepareWanted {
  /** An image of another registry; undefined = the demo's own. */
  readonly image: string | undefined
  /** `127.0.0.1:PORT` of the demo's registry, without the slow network: images are made where they are kept. */
  readonly registry: string
  readonly directory: string
  readonly output: Output
  readonly signal: AbortSignal
}

export interface Prepared {
  readonly image: DemoResult['image']
  readonly prepare: DemoResult['prepare']
  /** Name and tag below any address of the registry. */
  readonly plain: string
  readonly nydus: string
}

/** Makes or copies the image, converts it, and compares every file of the two. */
export async function prepareImages(wanted: PrepareWanted): Promise<Prepared> {
  const { registry, directory, signal } = wanted
  const reference = wanted.image === undefined ? undefined : parseReference(wanted.image)
  const name = reference?.repository ?? 'demo/app'
  const [plain, nydus] = [`${name}:${reference?.tag ?? 'oci'}`, `${name}:${reference?.tag ?? 'oci'}-nydus`]
  const [source, target] = [`${registry}/${plain}`, `${registry}/${nydus}`]
  const made = await timed(() =>
    wanted.image === undefined ? pushOwn(plain, wanted) : copyGiven(wanted.image, source, wanted),
  )
  const both = ['--source', source, '--target', target]
  const converted = await timed(() => nydusify(['convert', ...both, '--work-dir', join(directory, 'convert')], signal))
  const checked = await timed(() => nydusify(['check', ...both, '--work-dir', join(directory, 'check')], signal))
  return {
    image: { ...made.value, nydus_reference: nydus },
    prepare: { image_s: made.seconds, convert_s: converted.seconds, check_s: checked.seconds },
    plain,
    nydus,
  }
}

type ImageFacts = Omit<DemoResult['image'], 'nydus_reference'>

async function pushOwn(name: string, { registry, output, signal }: PrepareWanted): Promise<ImageFacts> {
  const bar = new TotalBar(output, 'making the image')
  try {
    const layers = planLayers(join(import.meta.dirname, '..'))
    const pushed = await pushImage({ layers, registry: `http://${registry}`, name, signal, onProgress: bar.show })
    return {
      reference: name,
      layers: pushed.layers.length,
      compressed_bytes: pushed.compressed,
      files: pushed.files,
      uncompressed_bytes: pushed.uncompressed,
    }
  } finally {
    bar.done()
  }
}

async function copyGiven(image: string, to: string, { output, signal }: PrepareWanted): Promise<ImageFacts> {
  const bar = new TotalBar(output, 'copying the image')
  try {
    await copyImage({ from: image, to, signal, onProgress: bar.show })
  } finally {
    bar.done()
  }
  const client = new RegistryClient({ credentials: anonymous(), plainHttp: 'always' })
  try {
    const { parsed } = await client
      .repository(parseReference(to))
      .manifest(parseReference(to).tag ?? 'latest', { signal })
    const layers = parsed.kind === 'image' ? parsed.image.layers : []
    return {
      reference: image,
      layers: layers.length,
      compressed_bytes: layers.reduce((sum, { size }) => sum + size, 0),
    }
  } finally {
    await client.close()
  }
}

/** A progress bar for those who tell how much is done, of how much. */
export class TotalBar {
  readonly #bar
  #done = 0

  constructor(output: Output, label: string) {
    this.#bar = output.progress(label, { total: 0, unit: 'bytes' })
  }

  readonly show = (done: number, total: number): void => {
    if (this.#done === 0) this.#bar.setTotal(total)
    this.#bar.advance(done - this.#done)
    this.#done = done
  }

  done(): void {
    this.#bar.done()
  }
}

async function timed<T>(work: () => Promise<T>): Promise<{ value: T; seconds: number }> {
  const from = performance.now()
  return { value: await work(), seconds: (performance.now() - from) / 1000 }
}
