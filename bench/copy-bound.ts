/** What a builder cannot do without: reads a file, digests each MiB and the whole, and writes it, in one thread. Run as a program: `copy-bound.ts FROM TO`. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { crc32c, digester } from '../src/codec/index.ts'

const PIECE_BYTES = 2 ** 20

function copy(from: string, to: string): void {
  const blob = createHash('sha256')
  const chunks = digester('blake3')
  const piece = new Uint8Array(PIECE_BYTES)
  const digest = new Uint8Array(32)
  const [source, target] = [openSync(from, 'r'), openSync(to, 'w')]
  try {
    for (let length = readSync(source, piece); length > 0; length = readSync(source, piece)) {
      const bytes = piece.subarray(0, length)
      chunks.digest(bytes, digest)
      crc32c(bytes)
      blob.update(bytes)
      writeSync(target, bytes)
    }
    blob.digest()
  } finally {
    closeSync(source)
    closeSync(target)
  }
}

const [from, to] = process.argv.slice(2)
if (from === undefined || to === undefined) throw new Error('write copy-bound.ts FROM TO')
copy(from, to)
