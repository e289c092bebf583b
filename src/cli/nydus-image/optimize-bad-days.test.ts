import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { localfsBackend } from '../../backend/index.ts'
import { optimizeImage } from '../../builder/index.ts'
import { mountTmpfs, unmount } from '../../kernel/index.ts'
import { openBootstrap } from '../../rafs/index.ts'
import { type Ran } from '../testing.ts'
import { withImageData } from './image-content.ts'
import { runAll } from './testing.ts'

let folder = ''
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'optimize-bad-days-'))
  for (const name of ['blobs', 'tree']) mkdirSync(join(folder, name))
  writeFileSync(join(folder, 'tree/early'), Buffer.alloc(0x9000, 'early text '))
  writeFileSync(join(folder, 'tree/late'), Buffer.concat([Buffer.alloc(0x4000, 1), Buffer.alloc(0x4000, 2)]))
  const list = (path: string): string => JSON.stringify({ version: 'v1', files: [{ path }] })
  writeFileSync(join(folder, 'list.json'), list('/late'))
  writeFileSync(join(folder, 'merged.json'), list('/dup/a'))
  const kinds = { six: 'zstd', plain: 'none' }
  const built = await runAll(
    Object.entries(kinds).map(([kind, compressor]) => {
      const how = ['--chunk-size', '0x4000', '--compressor', compressor]
      return ['create', '-l', 'error', ...how, '-D', 'blobs', '-B', `${kind}.boot`, 'tree']
    }),
    folder,
  )
  for (const { exit, stderr } of built) assert.equal(exit, 0, stderr)
})
after(() => rmSync(folder, { recursive: true, force: true }))

const outcome = async (...commands: ReadonlyArray<readonly string[]>): Promise<Ran[]> => {
  const before = [readdirSync(folder), readdirSync(join(folder, 'blobs'))]
  const ran = await runAll(commands, folder)
  assert.deepEqual([readdirSync(folder), readdirSync(join(folder, 'blobs'))], before)
  for (const { exit, stdout } of ran) assert.deepEqual([exit, stdout], [1, ''])
  return ran
}

test('lists that are none, and what is missing, are told and leave nothing', async () => {
  const lists: ReadonlyArray<readonly [string, RegExp]> = [
    ['{', /failed to parse prefetch file as JSON/],
    ['[]', /it is no object/],
    ['{"version":"v2","files":[]}', /unsupported prefetch file version: v2/],
    ['{"files":[]}', /missing field `version`/],
    ['{"version":"v1","files":[{"ranges":[]}]}', /file 0 is missing field `path`/],
    ['{"version":"v1","files":[{"path":"/late","ranges":[[1]]}]}', /no range of \/late/],
    ['{"version":"v1","files":[{"path":"/late","ranges":[[-1,2]]}]}', /no range of \/late/],
  ]
  for (const [i, [text]] of lists.entries()) writeFileSync(join(folder, `bad-${i}.json`), text)
  const common = ['-B', 'six.boot', '-O', 'never', '--output-blob-dir', 'blobs']
  const wrong: ReadonlyArray<readonly [readonly string[], RegExp]> = [
    ...lists.map(([, pattern], i) => [['optimize', ...common, '-D', 'blobs', '-p', `bad-${i}.json`], pattern] as const),
    [
      ['optimize', ...common, '-p', 'list.json'],
      /^Error: invalid backend configuration, --blob-dir or --backend-type must be specified\n/,
    ],
    [['optimize', ...common, '-D', 'tree', '-p', 'list.json'], /cannot read blob [0-9a-f]{64}/],
    [['optimize', ...common, '-D', 'blobs'], /missing parameter `prefetch-files`/],
    [
      ['optimize', '-B', 'six.boot', '-D', 'blobs', '-p', 'list.json', '-O', 'never', '--output-blob-dir', 'absent'],
      /cannot write absent\/blob/,
    ],
    [
      [
        'optimize',
        '-B',
        'six.boot',
        '-D',
        'blobs',
        '-p',
        'list.json',
        '-O',
        'absent/never',
        '--output-blob-dir',
        'tree',
      ],
      /cannot write absent\/never/,
    ],
  ]
  const ran = await outcome(...wrong.map(([args]) => args))
  for (const [i, { stderr }] of ran.entries()) assert.match(stderr, wrong[i]?.[1] ?? /never/)
  assert.deepEqual(readdirSync(join(folder, 'tree')).sort(), ['early', 'late'])
})

test('where a backend is given, --blob is not looked at, also for an image of several blobs', async () => {
  const image = join(import.meta.dirname, '../../rafs/testdata/v6-merge3.bootstrap')
  const places = ['--backend-type', 'http-proxy', '--backend-config', '{"addr":"absent.sock"}', '-b', 'absent']
  const [ran] = await outcome([
    'optimize',
    '-B',
    image,
    '-p',
    'merged.json',
    ...places,
    '-O',
    'never',
    '--output-blob-dir',
    'blobs',
  ])
  assert.match(ran?.stderr ?? '', /connect ENOENT absent\.sock/)
})

test('a damaged chunk is named', async () => {
  mkdirSync(join(folder, 'damaged'))
  const { id } = openBootstrap(readFileSync(join(folder, 'six.boot'))).blobs[0] ?? { id: '' }
  const bytes = readFileSync(join(folder, 'blobs', id))
  for (let at = 0; at < 2000; at += 3) bytes[at] = (bytes[at] ?? 0) ^ 0x55
  writeFileSync(join(folder, 'damaged', id), bytes)
  const [ran] = await outcome([
    'optimize',
    '-B',
    'six.boot',
    '-p',
    'list.json',
    '-D',
    'damaged',
    '-O',
    'never',
    '--output-blob-dir',
    'blobs',
  ])
  assert.match(
    ran?.stderr ?? '',
    new RegExp(`Failed to generate prefetch bootstrap\\n[^]*chunk \\d+ of blob ${id} is damaged`),
  )
})

test('a signal in the middle leaves nothing', async () => {
  const image = openBootstrap(readFileSync(join(folder, 'six.boot')))
  const backend = localfsBackend({ dir: join(folder, 'blobs') })
  const before = [readdirSync(folder), readdirSync(join(folder, 'blobs'))]
  const controller = new AbortController()
  await withImageData(image, backend, async (data) => {
    const work = optimizeImage(
      { image, backend, data, signal: controller.signal, onBytes: () => controller.abort(new Error('enough')) },
      {
        files: [{ path: '/late', ranges: undefined }],
        bootstrapPath: join(folder, 'never'),
        blobFolder: join(folder, 'blobs'),
      },
    )
    await assert.rejects(work, /enough/)
  })
  await backend.close()
  assert.deepEqual([readdirSync(folder), readdirSync(join(folder, 'blobs'))], before)
})

test('a bootstrap whose place is taken when the blob is there already takes the blob away again', async () => {
  const image = openBootstrap(readFileSync(join(folder, 'plain.boot')))
  const backend = localfsBackend({ dir: join(folder, 'blobs') })
  const taken = join(folder, 'taken')
  const blobFolder = join(folder, 'taken-blobs')
  mkdirSync(blobFolder)
  const { signal } = new AbortController()
  // Asked once more when the bootstrap is on the disk under another name, before anything appears.
  const asked = Object.assign(signal, {
    throwIfAborted: () => {
      if (readdirSync(folder).some((name) => name.startsWith('.taken.'))) mkdirSync(taken)
    },
  })
  await withImageData(image, backend, async (data) => {
    const work = optimizeImage(
      { image, backend, data, signal: asked, onBytes: () => undefined },
      { files: [{ path: '/late', ranges: undefined }], bootstrapPath: taken, blobFolder },
    )
    await assert.rejects(work, { code: 'OUTPUT' })
  })
  await backend.close()
  assert.deepEqual([readdirSync(blobFolder), readdirSync(taken)], [[], []])
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('.')),
    [],
  )
})

test('a full disk leaves nothing, neither for the blob nor for the bootstrap', {
  skip: process.getuid?.() !== 0 && 'mounting a small disk needs root',
}, async () => {
  const small = join(folder, 'small-disk')
  mkdirSync(small)
  mkdirSync(join(folder, 'out'))
  await mountTmpfs(small, 4096)
  try {
    const list = ['-B', 'plain.boot', '-p', 'list.json', '-D', 'blobs']
    const ran = await runAll(
      [
        ['optimize', ...list, '-O', 'never', '--output-blob-dir', 'small-disk'],
        ['optimize', ...list, '-O', 'small-disk/never', '--output-blob-dir', 'out'],
      ],
      folder,
    )
    for (const { exit, stderr } of ran) {
      assert.equal(exit, 1)
      assert.match(stderr, /no space left on device/)
    }
    assert.deepEqual(
      [readdirSync(small), readdirSync(join(folder, 'out')), existsSync(join(folder, 'never'))],
      [[], [], false],
    )
  } finally {
    await unmount(small)
  }
})
