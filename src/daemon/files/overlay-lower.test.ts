import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { RafsError } from '../../rafs/index.ts'
import { carriedImage } from '../testing.ts'
import { OverlayLower } from './overlay-lower.ts'

function open(bytes: Buffer): OverlayLower {
  const shared = new Uint8Array(new SharedArrayBuffer(bytes.length))
  shared.set(bytes)
  return new OverlayLower({ bytes: shared, inlinedBlobId: undefined, hot: { blobs: [] } })
}

test('all names of a file are found; a crafted directory that leads back to the root ends the search', () => {
  const bytes = readFileSync(carriedImage('v6-tar-none-c64k').bootstrap)
  const image = open(bytes)
  const at = (name: string, directory = image.root): number => {
    const found = image.lookup(directory, Buffer.from(`${name}\0`))
    assert.ok(found !== undefined, name)
    return found
  }
  const file = at('one', at('hard'))
  const names = image.names(file).map(({ name }) => Buffer.from(name).toString())
  assert.deepEqual(names.sort(), ['one\0', 'three\0', 'two\0'])
  assert.equal(image.place(at('sub', at('hard')))?.directory, at('hard'))

  const [entry, root] = [at('emptydir'), image.root].map((ino) => {
    const number = Buffer.alloc(8)
    number.writeBigUInt64LE(BigInt(ino))
    return number
  })
  let entries = 0
  for (let from = bytes.indexOf(entry); from !== -1; from = bytes.indexOf(entry, from + 8)) {
    if (bytes[from + 10] !== 2) continue // a directory entry: number, where its name is, type
    root.copy(bytes, from)
    entries++
  }
  assert.ok(entries > 0)
  assert.throws(
    () => open(bytes).names(file),
    (error) => error instanceof RafsError && error.code === 'BAD_DIRECTORY',
  )
})
