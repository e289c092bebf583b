import { type ZranPlace, ZranSlicer } from '../../blob/index.ts'
import { CodecError, GzipCursor } from '../../codec/index.ts'
import type { ByteInput } from '../../tar/index.ts'
import type { Content } from '../content.ts'
import { BuilderError } from '../errors.ts'
import type { ReferredLayer } from './referred-layer.ts'
import { inSegments } from './segments.ts'
import { WholeTar } from './whole-tar.ts'

/** Headers and what else of an archive is small. */
const SCRATCH_BYTES = 64 * 1024

/**
 * A gzip layer that stays as it is: the archive in it, inflated only as far as it is read, so that it is known of each chunk where in the file it lies. The whole file is digested. To be
 * finished when the archive was read, and ended in any case.
 */
export class GzipLayer implements ByteInput, ReferredLayer {
  position = 0
  readonly slicer: ZranSlicer
  readonly #file: WholeTar
  readonly #segments: AsyncGenerator<Uint8Array>
  readonly #cursor: GzipCursor
  /** Plain bytes that were inflated and not given yet, and before them those that may be put back: views of them stay valid until a call that waits. */
  readonly #scratch = new Uint8Array(new ArrayBuffer(SCRATCH_BYTES))
  #start = 0
  #end = 0

  /** Throws BuilderError 'UNSUPPORTED' where zlib cannot be called. */
  static open(pieces: AsyncGenerator<Uint8Array>, chunkSize: number): GzipLayer {
    const cursor = GzipCursor.open()
    if (cursor !== undefined) return new GzipLayer(pieces, cursor, chunkSize)
    throw new BuilderError('UNSUPPORTED', 'gzip layers cannot be referred to on this machine: zlib is not here')
  }

  private constructor(pieces: AsyncGenerator<Uint8Array>, cursor: GzipCursor, chunkSize: number) {
    this.#cursor = cursor
    this.#file = new WholeTar(pieces, true)
    this.#segments = inSegments(this.#file.archive)
    this.slicer = new ZranSlicer(cursor, chunkSize)
  }

  get archive(): ByteInput {
    return this
  }

  /** Of the file; after {@link finish}. */
  get id(): string {
    return this.#file.id
  }

  /** Bytes of the file; after {@link finish}. */
  get size(): number {
    return this.#file.size
  }

  takeNow(length: number): Uint8Array | undefined {
    if (this.#start + length > SCRATCH_BYTES) return undefined
    this.#gather(length)
    return this.#end - this.#start < length ? undefined : this.#give(length)
  }

  putBack(length: number): void {
    this.#start -= length
    this.position -= length
  }

  readNow(into: Uint8Array): number {
    const given = this.#end > this.#start ? this.#copyGathered(into) : 0
    if (this.#start === this.#end) this.#start = this.#end = 0
    const filled = given === into.length ? given : given + this.#inflate(given === 0 ? into : into.subarray(given))
    this.position += filled
    return filled
  }

  async take(length: number): Promise<Uint8Array> {
    if (length > SCRATCH_BYTES) {
      const bytes = new Uint8Array(length)
      return bytes.subarray(0, await this.read(bytes))
    }
    this.#scratch.copyWithin(0, this.#start, this.#end)
    this.#end -= this.#start
    this.#start = 0
    do this.#gather(length)
    while (this.#end < length && (await this.#feed()))
    return this.#give(Math.min(length, this.#end))
  }

  async read(into: Uint8Array): Promise<number> {
    let filled = this.readNow(into)
    while (filled < into.length && (await this.#feed())) filled += this.readNow(into.subarray(filled))
    return filled
  }

  async skip(length: number): Promise<number> {
    let skipped = 0
    while (skipped < length) {
      const wanted = Math.min(SCRATCH_BYTES, length - skipped)
      const given = (await this.take(wanted)).length
      skipped += given
      if (given < wanted) break
    }
    return skipped
  }

  /** The archive is over; the file is not. */
  async close(): Promise<void> {}

  /** Reads the file to its end. Throws BuilderError 'BAD_SOURCE' when that is not the end of a member. */
  async finish(): Promise<void> {
    this.#start = this.#end
    while ((await this.skip(Number.MAX_SAFE_INTEGER)) > 0);
    if (!this.#cursor.isWhole) throw this.#bad('it ends within a gzip member')
    this.slicer.finish()
  }

  async end(): Promise<void> {
    this.#cursor.close()
    this.slicer.close()
    await this.#file.end()
  }

  /** A file of the archive, whose chunks are referred to. Throws BuilderError 'UNSUPPORTED' for one that is stored with holes. */
  referred(content: Content): Content {
    if (content.holes !== undefined)
      throw new BuilderError(
        'UNSUPPORTED',
        `${content.name} is stored sparsely, so that its bytes are not in the layer as they are in the file; build the layer with --type targz-rafs`,
      )
    return new ReferredContent(content, this)
  }

  /** A chunk is read next. */
  async enterChunk(): Promise<void> {
    while (!this.slicer.begin()) {
      if (this.#guarded(() => this.#cursor.enterMember())) continue
      if (!(await this.#feed())) throw this.#bad('it ends within the content of a file')
    }
  }

  #give(length: number): Uint8Array {
    const view = this.#scratch.subarray(this.#start, this.#start + length)
    this.#start += length
    this.position += length
    return view
  }

  #copyGathered(into: Uint8Array): number {
    const length = Math.min(into.length, this.#end - this.#start)
    into.set(this.#scratch.subarray(this.#start, this.#start + length))
    this.#start += length
    return length
  }

  /** Inflates until so many bytes are gathered, or the input is used up. */
  #gather(length: number): void {
    const wanted = this.#start + length
    if (this.#end < wanted) this.#end += this.#inflate(this.#scratch.subarray(this.#end, wanted))
  }

  #inflate(into: Uint8Array): number {
    return this.#guarded(() => this.#cursor.read(into))
  }

  #guarded<T>(action: () => T): T {
    try {
      return action()
    } catch (error) {
      if (!(error instanceof CodecError)) throw error
      throw this.#bad(error.message, error)
    }
  }

  #bad(what: string, cause?: Error): BuilderError {
    const at = this.#cursor.compressedOffset
    return new BuilderError('BAD_SOURCE', `cannot decompress the layer: ${what}, after byte ${at} of it`, { cause })
  }

  /** False at the end of the file. */
  async #feed(): Promise<boolean> {
    const { done, value } = await this.#segments.next()
    if (done === true) return false
    this.#cursor.feed(value)
    return true
  }
}

class ReferredContent implements Content {
  readonly #content: Content
  readonly #layer: GzipLayer
  #place: ZranPlace | undefined

  constructor(content: Content, layer: GzipLayer) {
    this.#content = content
    this.#layer = layer
  }

  get name(): string {
    return this.#content.name
  }

  get size(): number {
    return this.#content.size
  }

  get place(): ZranPlace | undefined {
    return this.#place
  }

  read(into: Uint8Array): Promise<number> | number {
    if (!this.#layer.slicer.begin()) return this.#readLater(into)
    const reading = this.#content.read(into)
    return typeof reading === 'number' ? this.#end(reading) : reading.then((filled) => this.#end(filled))
  }

  async #readLater(into: Uint8Array): Promise<number> {
    await this.#layer.enterChunk()
    return this.#end(await this.#content.read(into))
  }

  #end(filled: number): number {
    this.#place = this.#layer.slicer.end()
    return filled
  }
}
