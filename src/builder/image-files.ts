import { createHash } from 'node:crypto'
import { inlinedBootstrap } from '../blob/index.ts'
import { Artifact, isPipe } from './artifact.ts'
import type { OutputPlace } from './blob-output.ts'
import type { BuiltImage, ImagePlaces } from './build-image.ts'
import type { BuiltLayer } from './built-layer.ts'
import { externalPath } from './external-output.ts'

/**
 * What is written of an image beside its blob, once all of it is known: the bootstrap, and that of external files. All is on the disk before any of it, or the blob, appears: a disk that is full leaves
 * nothing. The bootstrap appears last.
 */
export class ImageFiles {
  readonly #files: WholeFile[] = []
  #bootstrap: WholeFile | undefined
  #external: { readonly bootstrap: WholeFile | undefined; readonly blobs: readonly string[] } | undefined

  static async settled(built: Pick<BuiltLayer, 'bootstrap' | 'external'>, places: ImagePlaces): Promise<ImageFiles> {
    const files = new ImageFiles()
    try {
      await files.#settleExternal(built.external, places)
      if (places.bootstrap !== undefined) files.#bootstrap = await files.#add(places.bootstrap, built.bootstrap)
      return files
    } catch (error) {
      await files.discard()
      throw error
    }
  }

  async #settleExternal(external: BuiltLayer['external'], places: ImagePlaces): Promise<void> {
    if (external === undefined) return
    const { bootstrap: bytes, blobs } = external
    const { bootstrap: place, externalBlob } = places
    if (externalBlob !== undefined) {
      const content = place === undefined ? inlinedBootstrap(bytes) : new Uint8Array(0)
      await this.#add({ kind: 'file', path: externalBlob }, content)
    }
    let bootstrap: WholeFile | undefined
    if (place?.kind === 'file') bootstrap = await this.#add({ kind: 'file', path: externalPath(place.path) }, bytes)
    if (place?.kind === 'directory') bootstrap = await this.#add(place, bytes, '.external')
    this.#external = { bootstrap, blobs: blobs.map(({ id }) => id) }
  }

  async #add(place: OutputPlace, bytes: Uint8Array, suffix = ''): Promise<WholeFile> {
    const file = await WholeFile.settled(place, bytes, suffix)
    this.#files.push(file)
    return file
  }

  async publish(): Promise<Pick<BuiltImage, 'bootstrapPath' | 'external'>> {
    const paths = new Map<WholeFile | undefined, string>()
    for (const file of this.#files) paths.set(file, await file.publish())
    const external = this.#external && {
      bootstrapPath: paths.get(this.#external.bootstrap),
      blobs: this.#external.blobs,
    }
    return { bootstrapPath: paths.get(this.#bootstrap), external }
  }

  /** Takes back what `publish` let appear. */
  async retract(): Promise<void> {
    for (const file of this.#files.toReversed()) await file.retract()
  }

  /** Does nothing to what was published. */
  async discard(): Promise<void> {
    for (const file of this.#files) await file.discard()
  }
}

/** A file whose bytes are known. Into a pipe they go when it is published: its reader may want others first. */
class WholeFile {
  readonly #path: string
  readonly #name: string | undefined
  readonly #bytes: Uint8Array
  #artifact: Artifact | undefined

  private constructor(path: string, name: string | undefined, bytes: Uint8Array) {
    this.#path = path
    this.#name = name
    this.#bytes = bytes
  }

  /** In a directory it is named by its digest and the suffix. */
  static async settled(place: OutputPlace, bytes: Uint8Array, suffix: string): Promise<WholeFile> {
    const isNamed = place.kind === 'file'
    const name = isNamed ? undefined : createHash('sha256').update(bytes).digest('hex') + suffix
    const file = new WholeFile(place.path, name, bytes)
    if (isNamed && (await isPipe(place.path))) return file
    try {
      file.#artifact = isNamed ? await Artifact.create(place.path) : await Artifact.createIn(place.path, 'bootstrap')
      await file.#artifact.write(bytes)
      await file.#artifact.settle()
      return file
    } catch (error) {
      await file.discard()
      throw error
    }
  }

  async publish(): Promise<string> {
    if (this.#artifact !== undefined) return await this.#artifact.publish(this.#name)
    this.#artifact = await Artifact.create(this.#path)
    await this.#artifact.write(this.#bytes)
    return await this.#artifact.publish()
  }

  async retract(): Promise<void> {
    await this.#artifact?.retract()
  }

  async discard(): Promise<void> {
    await this.#artifact?.discard()
  }
}
