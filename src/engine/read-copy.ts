import type { ChunkInfo, VerifiedChunk } from '../blob/index.ts'
import { type ChunkCopy, CopyFile, type FileTwin } from '../cache/index.ts'
import { type FetchParts, verifyPlain } from './fetch.ts'
import type { ImageBlob } from './image-blob.ts'

/** Looks for a chunk's bytes in other files, verifies them, and hands them to `use`, during which they may be used. False when none has them. */
export async function readCopy(
  blob: ImageBlob,
  chunk: number,
  copies: readonly ChunkCopy[],
  parts: FetchParts,
  use: (info: ChunkInfo, bytes: VerifiedChunk, twin: FileTwin) => Promise<void>,
): Promise<boolean> {
  const info = blob.chunk(chunk)
  const plain = parts.buffers.take(info.uncompressedSize)
  for (const { path, offset } of copies) {
    const file = await CopyFile.open(path)
    if (file === undefined) continue
    try {
      if (!(await file.read(offset, plain.bytes.subarray(0, info.uncompressedSize)))) continue
      const verified = await verifyPlain(blob, info, plain, parts.decoders)
      if (verified === undefined) continue
      await use(info, verified, { fd: file.fd, offset })
      parts.buffers.give(plain)
      return true
    } finally {
      await file.close()
    }
  }
  parts.buffers.give(plain)
  return false
}
