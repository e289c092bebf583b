import { type Descriptor, type Manifest, MEDIA_TYPES, type ParsedManifest } from '../../registry/index.ts'
import type { ContentStore } from './content-store.ts'
import type { ImageSource } from './image-source.ts'

/** Puts content of a registry into containerd's store, as containerd's own clients do it: named, labelled for the garbage collector, told of one by one. */
export class ContentFetcher {
  readonly #from: ImageSource
  readonly #to: ContentStore
  readonly #onFetch: (descriptor: Descriptor) => void

  constructor(from: ImageSource, to: ContentStore, onFetch: (descriptor: Descriptor) => void) {
    this.#from = from
    this.#to = to
    this.#onFetch = onFetch
  }

  async manifest({ descriptor, bytes, parsed }: Manifest, signal: AbortSignal): Promise<void> {
    this.#onFetch(descriptor)
    const { digest } = descriptor
    const kind = parsed.kind === 'image' ? 'manifest' : 'index'
    const open = async function* (offset: number): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(offset)
    }
    await this.#to.write({ digest, size: bytes.length, ref: `${kind}-${digest}`, open }, signal)
    await this.#to.label(digest, { ...childLabels(parsed), ...(await this.#sourceLabel(descriptor)) })
  }

  /** A config or a layer. */
  async blob(descriptor: Descriptor, signal: AbortSignal): Promise<void> {
    this.#onFetch(descriptor)
    const { digest, size, mediaType } = descriptor
    const kind = isConfig(mediaType) ? 'config' : 'layer'
    await this.#to.write(
      {
        digest,
        size,
        ref: `${kind}-${digest}`,
        open: (offset, under) => this.#from.blobStream(digest, { offset, size, signal: under }),
      },
      signal,
    )
    await this.#to.label(digest, await this.#sourceLabel(descriptor))
  }

  /** Which repositories have this content: pushes to the same registry then need not send it. */
  async #sourceLabel({ digest }: Descriptor): Promise<Record<string, string>> {
    const { host, repository } = this.#from.reference
    const key = `containerd.io/distribution.source.${host}`
    const known = (await this.#to.labels(digest)).get(key)?.split(',') ?? []
    const value = [...new Set([...known, repository])].sort().join(',')
    // A label has room for 4096 bytes; this one is a convenience.
    return key.length + value.length > 4096 ? {} : { [key]: value }
  }
}

/** Labels by which the garbage collector finds what a manifest or an index refers to. */
export function childLabels(parsed: ParsedManifest): Record<string, string> {
  const numbered = (letter: string, children: readonly Descriptor[]): Array<readonly [string, string]> =>
    children.map(({ digest }, index) => [`containerd.io/gc.ref.content.${letter}.${index}`, digest] as const)
  if (parsed.kind === 'index') return Object.fromEntries(numbered('m', parsed.index.manifests))
  return Object.fromEntries([
    ['containerd.io/gc.ref.content.config', parsed.image.config.digest] as const,
    ...numbered('l', parsed.image.layers),
  ])
}

function isConfig(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.ociConfig || mediaType === MEDIA_TYPES.dockerConfig || mediaType.includes('.config.')
}
