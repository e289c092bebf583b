/** A few of the original's images, kept with the project: see testdata/README.md. The large set is in fixtures.test.ts. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { openBootstrap } from '../rafs/index.ts'
import { checkBootstrap } from './index.ts'
import { assertSameLines, assertSameMeaning, buildTar, contentOf, sha256, shownLines, treeLines } from './testing.ts'

const at = (name: string): Buffer => readFileSync(join(import.meta.dirname, 'testdata', name))

for (const name of ['gnu-long', 'dup-entries', 'concat']) {
  test(`builds ${name} byte for byte as the original`, async () => {
    const built = await buildTar(at(`${name}.tar`))
    assert.ok(Buffer.from(built.bootstrap).equals(at(`${name}.bootstrap`)))
  })
}

test('builds a compressed layer as the original does', async () => {
  const built = await buildTar(at('third.tar.gz'))
  assertSameMeaning(openBootstrap(built.bootstrap), openBootstrap(at('third.bootstrap')))
})

for (const name of ['implicit', 'gnu-sparse', 'link-to-symlink', 'pax-newline']) {
  test(`builds ${name} rightly, where the original fails`, async () => {
    const built = await buildTar(at(`${name}.tar`))
    assertSameLines(shownLines(built.bootstrap), treeLines(at(`${name}.tar.v6.jsonl`).toString()), 'tree')
    const image = openBootstrap(built.bootstrap)
    assert.deepEqual([...checkBootstrap(image)], [])
    const lines = at(`${name}.tar.v6.jsonl`).toString().trim().split('\n')
    for (const { path, type, sha256: wanted } of lines.map((line) => JSON.parse(line) as Record<string, string>)) {
      if (type === 'file' && wanted !== undefined)
        assert.equal(sha256(contentOf(image, [built.blob], path)), wanted, path)
    }
  })
}
