import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import * as fc from 'fast-check'
import { BlobError, BOOTSTRAP_TAIL_BYTES, locateBootstrap } from '../../blob/index.ts'
import { ExitError } from '../output.ts'
import { openBootstrapFile, openNamedImage } from './bootstrap-file.ts'
import { runAll } from './testing.ts'

let folder = ''

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'inlined-'))
  mkdirSync(join(folder, 'tree'))
  writeFileSync(join(folder, 'tree/file'), 'content\n'.repeat(1000))
  const built = await runAll(
    [
      ['create', '-l', 'error', '--blob-inline-meta', '--features', 'blob-toc', '-b', 'toc.blob', 'tree'],
      ['create', '-l', 'error', '--blob-inline-meta', '-b', 'plain.blob', 'tree'],
    ],
    folder,
  )
  assert.deepEqual(
    built.map(({ exit }) => exit),
    [0, 0],
  )
})

after(() => rmSync(folder, { recursive: true, force: true }))

for (const name of ['toc', 'plain']) {
  describe(`a blob that carries its bootstrap (${name}.blob)`, () => {
    test('is opened, its name is its id', async () => {
      const image = await openNamedImage(join(folder, `${name}.blob`), undefined)
      assert.equal(image.inodeCount, 2)
      assert.equal(image.blobs[0]?.id, name)
    })

    test('is no bootstrap where one is asked for', async () => {
      await assert.rejects(openBootstrapFile(join(folder, `${name}.blob`)), /invalid RAFS superblock/)
      await assert.rejects(openNamedImage(undefined, join(folder, `${name}.blob`)), /invalid RAFS superblock/)
    })

    test('damaged anywhere, gives an image or a coded error, never anything else', async () => {
      const bytes = readFileSync(join(folder, `${name}.blob`))
      const position = fc.nat(bytes.length - 1)
      await fc.assert(
        fc.asyncProperty(position, fc.nat(255), fc.option(position), async (at, byte, cut) => {
          const damaged = Buffer.from(bytes.subarray(0, cut ?? bytes.length))
          if (at < damaged.length) damaged[at] = byte
          const path = join(folder, 'damaged')
          writeFileSync(path, damaged)
          await openNamedImage(path, undefined).catch((error: unknown) => assert.ok(error instanceof ExitError))
        }),
        { numRuns: 200 },
      )
    })
  })
}

test('a blob that says that its bootstrap is larger than itself, or than any, is refused before memory is taken', () => {
  const bytes = readFileSync(join(folder, 'toc.blob'))
  const tail = bytes.subarray(-BOOTSTRAP_TAIL_BYTES)
  const part = locateBootstrap(tail, bytes.length)
  assert.ok(part)
  for (const [claim, wanted] of [
    [1n << 62n, BlobError],
    [1n << 40n, undefined],
    [1n << 29n, undefined],
  ] as const) {
    const crafted = Buffer.from(tail)
    // The plain size of the entry "image.boot".
    const entry = crafted.lastIndexOf('image.boot\0') - 8
    crafted.writeBigUInt64LE(claim, entry + 72)
    if (wanted === undefined) assert.equal(locateBootstrap(crafted, bytes.length), undefined)
    else assert.throws(() => locateBootstrap(crafted, bytes.length), wanted)
  }
})

test('a huge file that is no blob is not read', async () => {
  const path = join(folder, 'huge')
  writeFileSync(path, '')
  truncateSync(path, 2 ** 41)
  await assert.rejects(openNamedImage(path, undefined), /invalid RAFS superblock/)
})
