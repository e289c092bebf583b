import { NBD, nbdReply, type NbdRequest, NbdRequests, type UnixStream } from '../../kernel/vm/index.ts'
import { messageOf } from '../errors.ts'
import { readDisk } from './disk-read.ts'
import type { ImageDisk } from './image-disk.ts'

export interface NbdConnectionOptions {
  readonly disk: Pick<ImageDisk, 'size' | 'blockSize' | 'readNow' | 'read'>
  readonly onError: (text: string) => void
  /** The kernel asks no more. */
  readonly onEnd: () => void
}

const READ_BYTES = 64 << 10
/** As the driver and the protocol have it. */
const MAX_LENGTH = 32 << 20

/** Answers the requests of one connection of a network block device: reads, and nothing else. Answers go out as their data comes, in any order. */
export class NbdConnection {
  readonly #stream: UnixStream
  readonly #options: NbdConnectionOptions
  readonly #requests = new NbdRequests()
  readonly #buffer = Buffer.allocUnsafeSlow(READ_BYTES)
  readonly #closing = new AbortController()

  constructor(stream: UnixStream, options: NbdConnectionOptions) {
    this.#stream = stream
    this.#options = options
    stream.listen({ onReadable: () => this.#read(), onError: (error) => this.#end(messageOf(error)) })
  }

  close(): void {
    if (this.#closing.signal.aborted) return
    this.#closing.abort()
    this.#stream.close()
  }

  #end(why?: string): void {
    if (this.#closing.signal.aborted) return
    if (why !== undefined) this.#options.onError(why)
    this.close()
    this.#options.onEnd()
  }

  #read(): void {
    try {
      for (;;) {
        const received = this.#stream.receive(this.#buffer)
        if (received === undefined) return
        if (received.length === 0) return this.#end()
        for (const request of this.#requests.push(this.#buffer.subarray(0, received.length))) {
          if (request.isMagic && request.type === NBD.DISCONNECT) return this.#end()
          void this.#answer(request)
        }
      }
    } catch (error) {
      this.#end(messageOf(error))
    }
  }

  async #answer(request: NbdRequest): Promise<void> {
    const refusal = this.#refusal(request)
    if (refusal !== undefined) {
      this.#stream.send(nbdReply(request, refusal))
      return
    }
    const { disk, onError } = this.#options
    try {
      const bytes = await readDisk(disk, request, this.#closing.signal)
      this.#stream.send(nbdReply(request, 0))
      this.#stream.send(bytes)
    } catch (error) {
      if (this.#closing.signal.aborted) return
      onError(`cannot read ${request.length} bytes at ${request.offset}: ${messageOf(error)}`)
      this.#stream.send(nbdReply(request, NBD.EIO))
    }
  }

  /** The error of a request that is no read of the disk. */
  #refusal({ isMagic, type, offset, length }: NbdRequest): number | undefined {
    const { size, blockSize } = this.#options.disk
    if (!isMagic) return NBD.EINVAL
    if (type === NBD.WRITE) return NBD.EPERM
    if (type !== NBD.READ || length > MAX_LENGTH) return NBD.EINVAL
    return offset % blockSize !== 0 || length % blockSize !== 0 || offset + length > size ? NBD.EINVAL : undefined
  }
}
