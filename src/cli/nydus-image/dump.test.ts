import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { run, runAll, TOOL } from './testing.ts'

const IMAGE = join(import.meta.dirname, '../../rafs/testdata/v6-merge3.bootstrap')
let folder = ''

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'dump-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

describe('nydus-image dump', () => {
  test('gives the same text on stdout, in a file and by -B, and of a blob that carries its bootstrap', async () => {
    mkdirSync(join(folder, 'tree'))
    writeFileSync(join(folder, 'tree/a b%'), 'content')
    const tool = ['create', '-l', 'error', '--features', 'blob-toc']
    const [built, ...dumps] = await runAll(
      [
        [...tool, '--blob-inline-meta', '-b', 'one.blob', 'tree'],
        ['dump', 'one.blob'],
        ['dump', 'one.blob', '-o', 'one.txt'],
        ['dump', '-o', '-', 'one.blob'],
        ['dump', '-B', IMAGE],
        ['dump', '--output=image.txt', IMAGE],
      ],
      folder,
    )
    assert.equal(built?.exit, 0, built?.stderr)
    assert.deepEqual(
      dumps.map(({ exit, stderr }) => `${exit}${stderr}`),
      ['0', '0', '0', '0', '0'],
    )
    const [carried, file, dash, deprecated, image] = dumps.map(({ stdout }) => stdout)
    assert.match(
      carried ?? '',
      /^#image version=6 .*\n#blob index=0 id=one .*\n\/ dir .*\n\/a%20b%25 file .* chunks=[0-9a-f]{64}\n$/,
    )
    assert.deepEqual([file, dash, image], ['', carried, ''])
    assert.equal(readFileSync(join(folder, 'one.txt'), 'utf8'), carried)
    assert.equal(readFileSync(join(folder, 'image.txt'), 'utf8'), deprecated)
  })

  test('of a damaged image fails and leaves no file', () => {
    const bytes = readFileSync(IMAGE)
    // The last directory entries: the walk comes to them late.
    bytes.fill(0xff, bytes.length - 8192)
    writeFileSync(join(folder, 'bad.boot'), bytes)
    mkdirSync(join(folder, 'out'))
    const { exit, stderr } = run(['dump', '-o', 'out/bad.txt', 'bad.boot'], folder)
    assert.equal(exit, 1)
    assert.match(stderr, /^Error: failed to dump "bad.boot"\n\nCaused by:\n {4}.*(damaged|outside).*\n$/)
    assert.deepEqual(readdirSync(join(folder, 'out')), [])
  })

  test('stops quietly when its reader has seen enough', () => {
    const script = `{ "$0" --disable-warning=ExperimentalWarning "$1" dump "$2" 2> told; echo $? > code; } | head -c 10`
    execFileSync('sh', ['-c', script, process.execPath, TOOL, IMAGE], { cwd: folder })
    assert.deepEqual(
      [readFileSync(join(folder, 'told'), 'utf8'), readFileSync(join(folder, 'code'), 'utf8')],
      ['', '141\n'],
    )
  })
})
