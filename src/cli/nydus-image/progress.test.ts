import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { localfsBackend } from '../../backend/index.ts'
import { checkBlobs, checkTree, ImageStatistics } from '../../builder/index.ts'
import { type Bootstrap, dumpLines, emptyDirectory, openBootstrap, writeBootstrapV6 } from '../../rafs/index.ts'
import { openBootstrapFile } from './bootstrap-file.ts'
import { writePieces } from './print-pieces.ts'
import { type Ran } from '../testing.ts'
import { runAll } from './testing.ts'

let folder = ''
let ran: Ran[] = []

/** Each command that takes --progress, as a quick one. */
const QUICK: readonly string[][] = [
  ['create', '-l', 'error', '-D', '.', '--blob-id', 'one', '-B', 'one.boot', 'tree'],
  ['create', '-l', 'error', '-D', '.', '--blob-id', 'two', '-B', 'two.boot', 'tree'],
  ['merge', '-B', 'merged.boot', 'one.boot', 'two.boot'],
  ['check', '-D', '.', 'one.boot'],
  ['stat', '-B', 'one.boot', '-J', 'stat.json'],
  ['unpack', '-D', '.', '--output', 'one.tar', 'one.boot'],
  ['export', '--block', '-D', '.', '-B', 'one.boot', '-O', 'one.disk'],
]

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'progress-'))
  mkdirSync(join(folder, 'tree/below'), { recursive: true })
  for (const name of ['a', 'below/b']) writeFileSync(join(folder, 'tree', name), name.repeat(5000))
  execFileSync('ln', [join(folder, 'tree/a'), join(folder, 'tree/c')])
  ran = await runAll(
    QUICK.map((args, i) => [...args, '--progress', ['json', 'plain', 'auto'][i % 3] ?? '']),
    folder,
  )
})
after(() => rmSync(folder, { recursive: true, force: true }))

describe('--progress', () => {
  test('shows nothing of quick work, in any command', () => {
    assert.deepEqual(
      ran.map(({ exit, stderr }) => `${exit}${stderr}`),
      QUICK.map(() => '0'),
    )
  })

  test('is one of four words', async () => {
    const wrong = await runAll(
      QUICK.map((args) => [...args, '--progress', 'loud']),
      folder,
    )
    for (const { exit, stderr } of wrong) {
      assert.equal(exit, 2)
      assert.match(
        stderr,
        /^error: invalid value 'loud' for '--progress <progress>'\n {2}\[possible values: auto, plain, json, none\]/,
      )
    }
  })

  test('counts every path and every stored byte', async () => {
    const image = await openBootstrapFile(join(folder, 'one.boot'))
    const { signal } = new AbortController()
    const counted = { checked: 0, stored: 0, counted: 0 }
    for await (const finding of checkTree(image, { signal, onPath: () => void (counted.checked += 1) }))
      assert.fail(finding.message)
    const backend = localfsBackend({ dir: folder })
    for await (const finding of checkBlobs(image, backend, signal, (bytes) => void (counted.stored += bytes)))
      assert.fail(finding.message)
    await new ImageStatistics('blake3', () => void (counted.counted += 1)).addBase(image, signal)
    assert.deepEqual(counted, { checked: 5, counted: 5, stored: image.blobs[0]?.compressedSize })
  })

  const ENDLESS: ReadonlyArray<
    readonly [string, (image: Bootstrap, signal: AbortSignal, onPath: () => void) => Promise<void>]
  > = [
    [
      'a check of paths',
      async (image, signal, onPath) => {
        for await (const finding of checkTree(image, { signal, onPath })) assert.fail(finding.message)
      },
    ],
    ['stat', (image, signal, onPath) => new ImageStatistics('blake3', onPath).addBase(image, signal)],
    [
      'a dump to a file',
      async (image, signal, onPath) => {
        // A file takes everything at once.
        const sink = (text: Uint8Array): Promise<void> => {
          for (const byte of text) if (byte === 10) onPath()
          return Promise.resolve()
        }
        await writePieces(dumpLines(image, 'text'), sink, signal)
      },
    ],
  ]
  for (const [what, run] of ENDLESS)
    test(`${what} ends when it is interrupted`, async () => {
      const interrupted = new AbortController()
      // As a signal comes: by the event loop.
      setImmediate(() => interrupted.abort(new Error('enough')))
      let paths = 0
      await assert.rejects(
        run(wideImage(), interrupted.signal, () => void (paths += 1)),
        /enough/,
      )
      assert.ok(paths < 10_000, `${paths}`)
    })
})

function wideImage(): Bootstrap {
  const root = emptyDirectory(new Uint8Array(0))
  root.children = Array.from({ length: 20_000 }, (_unused, index) =>
    emptyDirectory(Buffer.from(String(index).padStart(5, '0'))),
  )
  const options = { chunkSize: 4096, compression: 'none', digest: 'blake3', explicitOwners: true } as const
  const bytes = writeBootstrapV6({ root, blobs: [] }, { ...options, alwaysXattrs: false, prefetch: [] })
  return openBootstrap(bytes)
}
