import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Attributes } from '../bootstrap.ts'
import { ByteReader } from '../byte-reader.ts'
import { FileTree } from '../file-tree.ts'
import { MODE } from '../mode.ts'
import { newValues } from '../node-values.ts'
import { BootstrapV6 } from './reader.ts'
import { writeFilesV6 } from './writer.ts'

/** Counts what is read of a bootstrap. */
class CountingReader extends ByteReader {
  fields = 0

  override u16(at: number): number {
    this.fields++
    return super.u16(at)
  }
}

const OPTIONS = {
  chunkSize: 0x10_0000,
  compression: 'zstd',
  digest: 'blake3',
  explicitOwners: true,
  alwaysXattrs: false,
  prefetch: [],
} as const
/** Their names take several blocks. */
const CHILDREN = 1000

function imageOf(folders: number): CountingReader {
  const files = new FileTree()
  const root = files.addRoot(newValues(MODE.DIRECTORY | 0o755))
  for (let folder = 0; folder < folders; folder++) {
    const id = files.put(root, `d${folder}`, newValues(MODE.DIRECTORY | 0o755))
    for (let child = 0; child < CHILDREN; child++)
      files.put(id, `child-${String(child).padStart(4, '0')}`, newValues(MODE.FIFO | 0o644))
  }
  return new CountingReader(writeFilesV6({ files, root, blobs: [] }, OPTIONS))
}

test('a listing whose visitor asks for attributes reads the directory once a block', () => {
  const from = imageOf(1)
  const image = new BootstrapV6(from, undefined)
  const folder = image.lookup(image.root, Buffer.from('d0')) ?? 0
  const attributes = new Attributes()
  let listed = 0
  from.fields = 0
  image.list(folder, 0, (_name, ino) => {
    image.attributes(ino, attributes)
    listed++
    return true
  })
  assert.equal(listed, CHILDREN)
  assert.ok(from.fields < CHILDREN * 7, `${from.fields} fields were read for ${CHILDREN} entries`)
})

test('a visitor may list other directories, and goes on where it was', () => {
  const image = new BootstrapV6(imageOf(2), undefined)
  const [first, second] = ['d0', 'd1'].map((name) => image.lookup(image.root, Buffer.from(name)) ?? 0)
  const outer: string[] = []
  let inner = 0
  image.list(first ?? 0, 0, (name) => {
    const text = Buffer.from(name).toString()
    outer.push(text)
    if (outer.length % 100 === 0) image.list(second ?? 0, 0, () => ++inner % CHILDREN !== 0)
    return true
  })
  assert.equal(inner, 10 * CHILDREN)
  assert.deepEqual(
    outer,
    Array.from({ length: CHILDREN }, (_unused, child) => `child-${String(child).padStart(4, '0')}`),
  )
})
