import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { type DumpEntry, dumpEntries, dumpLines, emptyDirectory, openBootstrap, writeBootstrapV6 } from './index.ts'
import { ownFixtures, randomTree, someBlob, someChunk } from './testing.ts'

const DEFAULTS = {
  chunkSize: 4096,
  explicitOwners: true,
  compression: 'zstd',
  digest: 'blake3',
  prefetch: [],
  alwaysXattrs: false,
} as const

/** A line of a text dump, read by the grammar of docs/nydus-image.md. */
function parsed(line: string): DumpEntry {
  const [path = '', type = '', mode = '', owner = '', nlink = '', size = '', time = '', ...more] = line.split(' ')
  const [uid = '', gid = ''] = owner.split(':')
  const [mtime = '', nanoseconds = ''] = time.split('.')
  const entry: DumpEntry = {
    path: unworded(path),
    type: type as DumpEntry['type'],
    mode,
    uid: Number(uid),
    gid: Number(gid),
    mtime: Number(mtime),
    mtime_nsec: Number(nanoseconds),
    nlink: Number(nlink),
  }
  if (size !== '-') entry.size = Number(size)
  for (const word of more) {
    const [name, value] = [word.slice(0, word.indexOf('=')), word.slice(word.indexOf('=') + 1)]
    if (name.startsWith('xattr:')) (entry.xattrs ??= {})[unworded(name.slice(6)).replaceAll('%3D', '=')] = value
    else if (name === 'chunks') entry.chunks = value.split(',').flatMap(counted)
    else if (name === 'rdev') entry.rdev = value
    else if (name === 'target' || name === 'hardlink') entry[name] = unworded(value)
    else assert.equal(name, 'prefetch')
  }
  return entry
}

function unworded(text: string): string {
  assert.match(text, /^([!-$&-~]|%[0-9A-F]{2})+$/)
  return text.replaceAll('%20', ' ')
}

function counted(chunk: string): string[] {
  const [id = '', count = '1'] = chunk.split('*')
  return Array.from({ length: Number(count) }, () => id)
}

function linesOf(bytes: Uint8Array, form: 'text' | 'json'): string[] {
  const lines = [...dumpLines(openBootstrap(bytes), form)].join('').split('\n')
  assert.equal(lines.pop(), '')
  return lines
}

describe('a dump', () => {
  for (const { id, bootstrap } of ownFixtures()) {
    test(`of ${id} says the same in both forms`, () => {
      const bytes = readFileSync(bootstrap)
      const image = openBootstrap(bytes)
      const wanted = [...dumpEntries(image)].map(withoutUndefined)
      const text = linesOf(bytes, 'text')
      assert.equal(text.filter((line) => line.startsWith('#')).length, 1 + image.blobs.length)
      assert.deepEqual(
        text
          .filter((line) => line.startsWith('/'))
          .map(parsed)
          .map(withoutUndefined),
        wanted,
      )
      const json = linesOf(bytes, 'json').map((line) => JSON.parse(line) as DumpEntry & { prefetch?: number })
      const paths = json.slice(1 + image.blobs.length).map(({ prefetch: _place, ...entry }) => withoutUndefined(entry))
      assert.deepEqual(paths, wanted)
    })
  }

  test('tells names, links and xattrs of any bytes apart', () => {
    fc.assert(
      fc.property(randomTree, ({ tree, chunkSize }) => {
        const bytes = writeBootstrapV6(tree, { ...DEFAULTS, chunkSize })
        const lines = linesOf(bytes, 'text').filter((line) => !line.startsWith('#'))
        assert.deepEqual(
          lines.map(parsed).map(withoutUndefined),
          [...dumpEntries(openBootstrap(bytes))].map(withoutUndefined),
        )
        assert.equal(new Set(lines.map((line) => line.split(' ')[0])).size, lines.length)
      }),
      { numRuns: 60 },
    )
  })

  test('marks what the prefetch table names, with its place there', () => {
    const root = emptyDirectory(new Uint8Array(0))
    const [a, b] = ['a', 'b'].map((name) => emptyDirectory(Buffer.from(name)))
    assert.ok(a !== undefined && b !== undefined)
    root.children = [a, b]
    const bytes = writeBootstrapV6({ root, blobs: [someBlob(0, 4096, 1)] }, { ...DEFAULTS, prefetch: [b, a] })
    const marks = linesOf(bytes, 'text').map((line) => / prefetch=\d+$/.exec(line)?.[0])
    assert.deepEqual(marks, [undefined, undefined, undefined, ' prefetch=1', ' prefetch=0'])
  })

  test('of a file with a hundred thousand chunks comes in small pieces, equal ones counted', () => {
    const count = 100_000
    const zero = someChunk(0, 0, 4096)
    const chunks = Array.from({ length: count }, () => zero)
    chunks[7] = someChunk(0, 1, 4096)
    const root = emptyDirectory(new Uint8Array(0))
    const file = { ...emptyDirectory(Buffer.from('sparse')), mode: 0o100644, children: undefined, chunks }
    root.children = [{ ...file, size: count * 4096 }]
    const image = openBootstrap(writeBootstrapV6({ root, blobs: [someBlob(0, 4096, 2)] }, DEFAULTS))
    const [id, other] = [zero, chunks[7]].map((chunk) => Buffer.from(chunk?.digest ?? []).toString('hex'))
    const text = [...dumpLines(image, 'text')].join('')
    assert.ok(text.endsWith(` chunks=${id}*7,${other},${id}*${count - 8}\n`))
    const pieces = [...dumpLines(image, 'json')]
    assert.ok(pieces.length > count && pieces.every((piece) => piece.length < 1000))
  })

  test('of a crafted image with many links on a long path keeps no path twice', () => {
    // 200 directories with names of 255 bytes, and 1,000 files with two names each at the end of it: 200 MB of text.
    const root = emptyDirectory(new Uint8Array(0))
    let at = root
    for (let depth = 0; depth < 200; depth += 1) {
      const next = emptyDirectory(new Uint8Array(255).fill(0x61))
      at.children = [next]
      at = next
    }
    at.children = Array.from({ length: 2000 }, (_unused, index) => ({
      ...emptyDirectory(Buffer.from(String(index).padStart(4, '0'))),
      mode: 0o100644,
      children: undefined,
      link: { id: index >> 1 },
    }))
    for (const [index, child] of at.children.entries()) if (index % 2 === 1) child.link = at.children[index - 1]?.link
    const image = openBootstrap(writeBootstrapV6({ root, blobs: [] }, DEFAULTS))
    const lines = dumpLines(image, 'text')
    let written = 0
    const before = used()
    let most = 0
    for (const piece of lines) {
      written += piece.length
      most = Math.max(most, used())
    }
    assert.ok(written > 100_000_000)
    assert.ok(most - before < 96 * 1024 * 1024, `${most - before} bytes`)
  })
})

function used(): number {
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return arrayBuffers + heapUsed
}

function withoutUndefined(entry: DumpEntry): unknown {
  return JSON.parse(JSON.stringify(entry))
}
