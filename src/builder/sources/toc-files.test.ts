import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TocFiles } from './toc-files.ts'

const digest = (at: number): Uint8Array => new Uint8Array(32).fill(at & 0xff)

test('files of a table keep their chunks, with offsets beyond 32 bits, and tell where members start', () => {
  const files = new TocFiles()
  assert.equal(files.end, 1)
  const offsetOf = (file: number, at: number): number => 2 ** 40 - file * 100_000 - at * 1000
  for (let file = 1; file <= 3000; file += 1) {
    assert.equal(files.add(file * 2 ** 21), file)
    for (let at = 0; at < file % 3; at += 1)
      files.addChunk({
        offset: offsetOf(file, at),
        chunkOffset: at * 2 ** 33,
        chunkSize: file,
        digest: digest(file + at),
      })
  }
  assert.equal(files.end, 3001)
  const offsets: number[] = []
  for (let file = 1; file < files.end; file += 1) {
    const { size, chunks } = files.at(file)
    assert.equal(size, file * 2 ** 21)
    const expected = Array.from({ length: file % 3 }, (_unused, at) => ({
      offset: offsetOf(file, at),
      chunkOffset: at * 2 ** 33,
      chunkSize: file,
      digest: digest(file + at),
    }))
    assert.deepEqual(chunks, expected)
    for (const { offset } of expected) offsets.push(offset)
  }
  assert.deepEqual(
    [...files.offsets()],
    offsets.sort((a, b) => a - b),
  )
})
