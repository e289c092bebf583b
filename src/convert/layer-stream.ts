import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { type Descriptor, type Digest, type Repository, RunningDigest } from '../registry/index.ts'
import { ConvertError } from './errors.ts'

/** Where a layer is read from, and what it must turn out to be. */
export interface LayerOrigin {
  readonly repository: Repository
  readonly layer: Descriptor
  /** Digest of the plain tar, by the image's config. */
  readonly diffId: Digest
  readonly signal: AbortSignal
  readonly onRead: (bytes: number) => void
}

const OUTPUT_BYTES = 256 * 1024

/**
 * The bytes of a layer while they come from the registry. The reader of a tar stops at its end mark, and then neither the layer's digest nor its diff id would have
 * been compared: so iterating may stop anywhere, and `finish` reads what is left and compares both. One of `finish` and `abandon` must be called.
 */
export class LayerStream implements AsyncIterable<Uint8Array> {
  readonly #origin: LayerOrigin
  readonly #stored: AsyncGenerator<Uint8Array, void, undefined>
  readonly #content: AsyncGenerator<Uint8Array, void, undefined>
  readonly #running: RunningDigest
  #isHashed = false

  constructor(origin: LayerOrigin) {
    const { repository, layer, diffId, signal } = origin
    this.#origin = origin
    this.#running = new RunningDigest(diffId.startsWith('sha512:') ? 'sha512' : 'sha256')
    this.#stored = counted(repository.blobStream(layer.digest, { size: layer.size, signal }), origin.onRead)
    this.#content = this.#plain()
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return openEnded(this.#content)
  }

  /** Throws 'BAD_IMAGE' when the tar is not the one that the config speaks of; RegistryError when the layer is not the one that the manifest speaks of. */
  async finish(): Promise<void> {
    const { layer, diffId } = this.#origin
    for await (const _ of this.#content);
    for await (const _ of this.#stored);
    if (!this.#isHashed) return
    const found = this.#running.digest()
    if (found === diffId) return
    throw new ConvertError(
      'BAD_IMAGE',
      `layer ${layer.digest} unpacks to ${found}, the image's config says ${diffId} (rootfs.diff_ids); the image was put together wrongly: build and push it again`,
    )
  }

  async abandon(): Promise<void> {
    await this.#content.return()
    await this.#stored.return()
  }

  async *#plain(): AsyncGenerator<Uint8Array, void, undefined> {
    const head = await readHead(this.#stored)
    const whole = joined(head, this.#stored)
    // What is compressed in many zstd frames is unpacked by the builder; the diff id is not compared then.
    if (isZstd(head)) {
      yield* whole
      return
    }
    this.#isHashed = true
    for await (const bytes of isGzip(head) ? gunzipped(whole, this.#origin.layer) : whole) {
      this.#running.update(bytes)
      yield bytes
    }
  }
}

/** RFC 1952 §2.3.1: magic and deflate. */
function isGzip(head: Uint8Array): boolean {
  return head[0] === 0x1f && head[1] === 0x8b && head[2] === 0x08
}

/** RFC 8878 §3.1: a frame's magic fd2fb528 or a skippable frame's 184d2a5?, little-endian. */
function isZstd(head: Uint8Array): boolean {
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd) return true
  return ((head[0] ?? 0) & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18
}

async function readHead(stream: AsyncGenerator<Uint8Array, void, undefined>): Promise<Uint8Array> {
  let head: Uint8Array = new Uint8Array(0)
  while (head.length < 4) {
    const next = await stream.next()
    if (next.done === true) break
    head = head.length === 0 ? next.value : Buffer.concat([head, next.value])
  }
  return head
}

async function* gunzipped(
  stream: AsyncIterable<Uint8Array>,
  layer: Descriptor,
): AsyncGenerator<Uint8Array, void, undefined> {
  const source = Readable.from(stream, { objectMode: false, highWaterMark: OUTPUT_BYTES })
  const gunzip = createGunzip({ chunkSize: OUTPUT_BYTES })
  let sourceError: Error | undefined
  source.on('error', (error) => {
    sourceError = error
  })
  // The error reaches the reader through `gunzip`; the callback only keeps it from being thrown as unhandled.
  pipeline(source, gunzip, () => undefined)
  try {
    for await (const bytes of gunzip as AsyncIterable<Buffer>) yield bytes
  } catch (cause) {
    if (sourceError !== undefined) throw sourceError
    throw new ConvertError('BAD_IMAGE', `cannot unpack layer ${layer.digest}: gzip says ${(cause as Error).message}`, {
      cause,
    })
  } finally {
    source.destroy()
    gunzip.destroy()
  }
}

/** A view whose end leaves the generator open. */
function openEnded(generator: AsyncGenerator<Uint8Array, void, undefined>): AsyncIterableIterator<Uint8Array> {
  return {
    next: () => generator.next(),
    [Symbol.asyncIterator]() {
      return this
    },
  }
}

async function* joined(
  head: Uint8Array,
  rest: AsyncGenerator<Uint8Array, void, undefined>,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield head
  yield* { [Symbol.asyncIterator]: () => openEnded(rest) }
}

async function* counted(
  stream: AsyncIterable<Uint8Array>,
  onRead: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const bytes of stream) {
    onRead(bytes.length)
    yield bytes
  }
}
