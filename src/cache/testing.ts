/** For tests of this room, which are about files: chunks of one blob, one after another. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { ChunkInfo, type VerifiedChunk } from '../blob/index.ts'

export const ID = 'c7cc34ec6fea3a01d749b71fee8966493e58aa2e1d5572d6f054ab17589abe2f'
/** Bytes of a chunk where nothing else is told. */
export const CHUNK = 4096

/** A folder that is removed with the test. */
export function temporary(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'nydus-cache-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export function chunk(index: number, size = CHUNK, offset = index * size): ChunkInfo {
  const info = new ChunkInfo()
  info.index = index
  info.uncompressedOffset = offset
  info.uncompressedSize = size
  return info
}

/** Nothing has to be hashed here for the brand. */
export function content(index: number, size = CHUNK): VerifiedChunk {
  return Buffer.alloc(size, `chunk ${index}, `) as Uint8Array as VerifiedChunk
}
