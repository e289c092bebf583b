/** For tests: a virtual machine monitor that maps a disk of `nydusd uffd` to its memory. */
import { closeSync } from 'node:fs'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { connectStream, FaultMemory, type UnixStream } from '../../kernel/vm/index.ts'
import { DocumentStream } from './uffd-protocol.ts'

interface Answer {
  readonly type: number
  readonly size: number
  readonly block_size: number
  readonly ranges: ReadonlyArray<{ readonly len: number; readonly blob_offset: number; readonly block_offset: number }>
}

/** One connection. Pages are touched on a thread, since touching waits. */
export class UffdClient implements AsyncDisposable {
  readonly stream: UnixStream
  /** All answers in order. */
  readonly answers: Answer[] = []
  /** Descriptors that came with answers. */
  descriptors = 0
  isOver = false
  memory: FaultMemory | undefined
  /** Maps nothing when false: whoever touches waits. */
  maps = true
  #offset = 0
  readonly #documents = new DocumentStream()
  readonly #buffer = Buffer.alloc(65536)
  #thread: Worker | undefined
  #touched: Promise<unknown> | undefined

  constructor(path: string) {
    this.stream = connectStream(path)
    this.stream.listen({ onReadable: () => this.#read(), onError: () => (this.isOver = true) })
  }

  async stat(): Promise<Answer> {
    this.stream.send(Buffer.from('{"type":2}'))
    return await this.next((answer) => answer.type === 3)
  }

  /** The next answer of a kind, which is taken out. */
  async next(wanted: (answer: Answer) => boolean): Promise<Answer> {
    for (let tries = 0; tries < 1000; tries++) {
      const index = this.answers.findIndex(wanted)
      const [found] = index < 0 ? [] : this.answers.splice(index, 1)
      if (found !== undefined) return found
      if (this.isOver) throw new Error('nydusd has hung up')
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    throw new Error('nydusd does not answer')
  }

  /** Maps `size` bytes of the disk from `offset` on. `document` makes the handshake of its region. */
  handshake(size: number, pageSize: number, document: (region: object) => object, offset = 0): void {
    this.#offset = offset
    this.memory = new FaultMemory(Math.ceil(size / (2 << 20)) * (2 << 20))
    const region = { base_host_virt_addr: this.memory.address, size, offset, page_size: pageSize }
    this.stream.send(Buffer.from(JSON.stringify(document(region))), [this.memory.fd])
  }

  /** Bytes of the memory; waits for those that are missing. */
  async touch(at: number, length: number): Promise<Buffer> {
    this.#thread ??= new Worker(new URL('../testdata/touch-memory.ts', import.meta.url))
    const answer = once(this.#thread, 'message')
    this.#touched = answer
    this.#thread.postMessage({ address: (this.memory?.address ?? 0) + at, length })
    const [bytes] = (await answer) as [Uint8Array]
    return Buffer.from(bytes)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stream.close()
    this.memory?.abandon()
    await this.#touched
    await this.#thread?.terminate()
    this.memory?.close()
  }

  #read(): void {
    for (let got = this.stream.receive(this.#buffer); got !== undefined; got = this.stream.receive(this.#buffer)) {
      if (got.length === 0) {
        this.isOver = true
        this.stream.close()
        return
      }
      const descriptors = [...got.descriptors]
      this.descriptors += descriptors.length
      for (const text of this.#documents.push(this.#buffer.subarray(0, got.length))) {
        const answer = JSON.parse(text) as Answer
        this.answers.push(answer)
        if (answer.type === 1) this.#map(answer, descriptors)
      }
    }
  }

  #map({ ranges }: Answer, descriptors: number[]): void {
    for (const { len, blob_offset: offset, block_offset: at } of ranges) {
      const fd = descriptors.shift()
      if (fd === undefined) throw new Error('a range came without its descriptor')
      if (this.maps) this.memory?.map(at - this.#offset, len, fd, offset)
      closeSync(fd)
    }
  }
}
