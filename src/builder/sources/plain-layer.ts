import type { StoredPlace } from '../../blob/index.ts'
import type { Content } from '../content.ts'
import { BuilderError } from '../errors.ts'
import type { ReferredLayer } from './referred-layer.ts'
import type { ArchivedContent } from './tar.ts'
import { WholeTar } from './whole-tar.ts'

/** A layer that is not compressed: chunks are where their files lie in the archive. */
export class PlainLayer implements ReferredLayer {
  readonly slicer = undefined
  readonly archive: AsyncIterable<Uint8Array>
  readonly #tar: WholeTar

  constructor(pieces: AsyncIterable<Uint8Array>) {
    this.#tar = new WholeTar(pieces, true)
    this.archive = this.#tar.archive
  }

  get id(): string {
    return this.#tar.id
  }

  get size(): number {
    return this.#tar.size
  }

  referred(content: ArchivedContent): Content {
    if (content.holes !== undefined)
      throw new BuilderError(
        'UNSUPPORTED',
        `${content.name} is stored sparsely, so that its bytes are not in the layer as they are in the file; build the layer with --type tar-rafs`,
      )
    return new PlainContent(content)
  }

  async finish(): Promise<void> {
    await this.#tar.finish()
  }

  async end(): Promise<void> {
    await this.#tar.end()
  }
}

class PlainContent implements Content {
  readonly #content: ArchivedContent
  #read = 0
  #place: StoredPlace | undefined

  constructor(content: ArchivedContent) {
    this.#content = content
  }

  get name(): string {
    return this.#content.name
  }

  get size(): number {
    return this.#content.size
  }

  get place(): StoredPlace | undefined {
    return this.#place
  }

  read(into: Uint8Array): Promise<number> | number {
    const reading = this.#content.read(into)
    return typeof reading === 'number' ? this.#end(reading) : reading.then((filled) => this.#end(filled))
  }

  #end(filled: number): number {
    this.#place = { compressedOffset: this.#content.archivePosition + this.#read, compressedSize: filled }
    this.#read += filled
    return filled
  }
}
