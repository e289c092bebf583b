import { CHUNK_RECORD, writeChunkRecord } from '../chunk-record.ts'
import type { ChunkId } from '../chunk-store.ts'
import type { FileTree, NodeId } from '../file-tree.ts'
import { compareNames } from '../names.ts'

/** One row a digest and blob, sorted by digest, then blob; of two uses the later one tells the file offset. */
export class ChunkTable {
  readonly #files: FileTree
  readonly #chunkSize: number
  /** By chunk: how late its last use comes, from 1; 0 when no file uses it. */
  readonly #order: Uint32Array
  /** By chunk: its number in the file of its last use. */
  readonly #positions: Uint32Array
  readonly #rows: Uint32Array
  readonly #count: number

  constructor(files: FileTree, root: NodeId, chunkSize: number) {
    this.#files = files
    this.#chunkSize = chunkSize
    this.#order = new Uint32Array(files.chunks.end)
    this.#positions = new Uint32Array(files.chunks.end)
    let order = 0
    for (const id of files.hybridOrder(root)) {
      const count = files.chunkCount(id)
      for (let index = 0; index < count; index++) {
        const chunk = files.chunk(id, index)
        this.#order[chunk] = ++order
        this.#positions[chunk] = index
      }
    }
    this.#rows = this.#sorted()
    this.#count = this.#dropEqual()
  }

  /** Bytes. */
  get size(): number {
    return this.#count * CHUNK_RECORD.size
  }

  write(view: DataView, at: number): void {
    for (let row = 0; row < this.#count; row++) {
      const id = this.#rows[row]
      writeChunkRecord(
        view,
        at + row * CHUNK_RECORD.size,
        this.#files.chunks.at(id),
        this.#positions[id] * this.#chunkSize,
      )
    }
  }

  /** First by the first bytes of the digest, which decide nearly all: 64-bit keys of those and the chunk sort without a call a comparison. */
  #sorted(): Uint32Array {
    const { chunks } = this.#files
    let used = 0
    for (let id = 1; id < chunks.end; id++) if (this.#order[id] !== 0) used++
    const keys = new Uint32Array(used * 2)
    for (let id = 1, at = 0; id < chunks.end; id++) {
      if (this.#order[id] === 0) continue
      keys[at++] = id
      keys[at++] = chunks.prefix(id)
    }
    new BigUint64Array(keys.buffer).sort()
    for (let from = 0, to = 0; from < used; from = to) {
      const prefix = keys[2 * from + 1]
      // In the place of the keys: a chunk moves to where none is looked at any more.
      for (to = from; to < used && keys[2 * to + 1] === prefix; to++) keys[to] = keys[2 * to]
      if (to - from > 1) keys.subarray(from, to).sort((a, b) => this.#compare(a, b) || this.#order[b] - this.#order[a])
    }
    return new Uint32Array(keys.buffer.transfer(used * 4))
  }

  /** Of equal rows the first stays; gives how many are left. */
  #dropEqual(): number {
    let count = 0
    for (const id of this.#rows)
      if (count === 0 || this.#compare(id, this.#rows[count - 1]) !== 0) this.#rows[count++] = id
    return count
  }

  #compare(a: ChunkId, b: ChunkId): number {
    const { chunks } = this.#files
    if (chunks.prefix(a) !== chunks.prefix(b)) return chunks.prefix(a) - chunks.prefix(b)
    const [first, second] = [chunks.at(a), chunks.at(b)]
    return compareNames(first.digest, second.digest) || first.blobIndex - second.blobIndex
  }
}
