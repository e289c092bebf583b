import type { Backend } from '../../backend/index.ts'
import { checkBlobs, compareWithImage, readSourceTree } from '../../builder/index.ts'
import { type Bootstrap, type DumpEntry, dumpEntries } from '../../rafs/index.ts'
import { checkLayerType } from '../layer.ts'
import { LayerStream } from '../layer-stream.ts'
import type { OpenedImage } from '../source-image.ts'
import type { ImageFinding } from './finding.ts'

/** Every chunk of the target is fetched and its digest compared. */
export async function* checkData(image: Bootstrap, blobs: Backend, signal: AbortSignal): AsyncGenerator<ImageFinding> {
  for await (const { object, message } of checkBlobs(image, blobs, signal))
    yield { image: 'target', rule: 'filesystem', object, message }
}

/** The plain source, its layers laid over each other, against the target's tree: attributes, links, xattrs, digests of all chunks. */
export async function compareWithPlain(
  source: OpenedImage,
  target: Bootstrap,
  onRead: (bytes: number) => void,
  signal: AbortSignal,
): Promise<ImageFinding[]> {
  for (const layer of source.manifest.layers) checkLayerType(layer)
  const streams = new LayerSequence(source, onRead, signal)
  try {
    const root = await readSourceTree(streams.openers(), {
      chunkSize: target.chunkSize,
      digest: target.blobs[0]?.digest ?? 'blake3',
      signal,
    })
    await streams.finish()
    return Array.from(
      compareWithImage(root, target),
      ({ object, message }): ImageFinding => ({ image: 'target', rule: 'filesystem', object, message }),
    )
  } finally {
    await streams.abandon()
  }
}

/** Layers that are opened one after the other; the one before is compared with its digests first. */
class LayerSequence {
  readonly #source: OpenedImage
  readonly #onRead: (bytes: number) => void
  readonly #signal: AbortSignal
  #current: LayerStream | undefined

  constructor(source: OpenedImage, onRead: (bytes: number) => void, signal: AbortSignal) {
    this.#source = source
    this.#onRead = onRead
    this.#signal = signal
  }

  openers(): Array<() => AsyncIterable<Uint8Array>> {
    return this.#source.manifest.layers.map((_, index) => () => this.#open(index))
  }

  async *#open(index: number): AsyncGenerator<Uint8Array> {
    await this.finish()
    const { repository, manifest, config } = this.#source
    const layer = manifest.layers[index]
    const diffId = config.rootfs.diff_ids[index]
    if (layer === undefined || diffId === undefined) return
    this.#current = new LayerStream({ repository, layer, diffId, signal: this.#signal, onRead: this.#onRead })
    yield* this.#current
  }

  async finish(): Promise<void> {
    await this.#current?.finish()
    this.#current = undefined
  }

  async abandon(): Promise<void> {
    await this.#current?.abandon()
  }
}

/** Two Nydus images: what the trees show must be equal; times and counts of links are not looked at, as with a plain source. */
export function* compareWithNydus(source: Bootstrap, target: Bootstrap): Generator<ImageFinding> {
  const finding = (object: string, message: string): ImageFinding => ({
    image: 'target',
    rule: 'filesystem',
    object,
    message,
  })
  if (source.chunkSize !== target.chunkSize) {
    yield finding(
      '/',
      `source and target have chunks of ${source.chunkSize} and ${target.chunkSize} bytes: their contents cannot be compared by digests; compare each with the plain image`,
    )
    return
  }
  const wanted = new Map(Array.from(dumpEntries(source), (entry) => [entry.path, shownParts(entry)]))
  for (const entry of dumpEntries(target)) {
    const other = wanted.get(entry.path)
    wanted.delete(entry.path)
    if (other === undefined) yield finding(entry.path, 'file not found in source image')
    else {
      const found = shownParts(entry)
      for (const [name, text] of Object.entries(found))
        if (other[name] !== text)
          yield finding(
            entry.path,
            `file not match in target image: ${name} is ${text}, the source's is ${other[name]}`,
          )
    }
  }
  for (const path of wanted.keys()) yield finding(path, 'file not found in target image')
}

/** What is compared, as text. */
const COMPARED = ['type', 'size', 'mode', 'uid', 'gid', 'rdev', 'target', 'hardlink', 'xattrs', 'chunks'] as const

function shownParts(entry: DumpEntry): Record<string, string> {
  const names = COMPARED.filter((name) => name !== 'size' || entry.type !== 'dir')
  return Object.fromEntries(names.map((name) => [name, JSON.stringify(entry[name]) ?? 'absent']))
}
