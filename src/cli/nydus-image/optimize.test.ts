import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Bootstrap, type ChunkSpan, openBootstrap } from '../../rafs/index.ts'
import { noShared, type Ran, sharedPath } from '../testing.ts'
import { runAll } from './testing.ts'

const peer = join(process.env['NYDUS_PEER_DIR'] ?? '', 'nydus-image')
const noPeer =
  process.env['NYDUS_PEER_DIR'] === undefined ? 'NYDUS_PEER_DIR is not set' : !existsSync(peer) && `there is no ${peer}`

/** How the source image stores its chunks. */
const KINDS: Readonly<Record<string, readonly string[]>> = {
  six: ['--chunk-size', '0x4000'],
  five: ['--chunk-size', '0x4000', '-v', '5', '--compressor', 'lz4_block'],
  toc: ['--chunk-size', '0x4000', '--features', 'blob-toc', '--digester', 'sha256'],
  batch: ['--chunk-size', '0x4000', '--batch-size', '0x4000'],
  encrypted: ['--chunk-size', '0x4000', '--encrypt'],
  plain: ['--chunk-size', '0x4000', '--compressor', 'none'],
}
const LIST = {
  version: 'v1',
  files: [
    { path: '/late', ranges: [[0x4001, 1]] },
    { path: '/small/3' },
    { path: '/hard' },
    { path: '/same', ranges: null },
    { path: '/late', ranges: [[0, 1]] },
    { path: '/small' },
    { path: '/link' },
    { path: '/missing' },
    { path: 'relative' },
  ],
}

let folder = ''
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'optimize-'))
  for (const name of ['blobs', 'tree/small']) mkdirSync(join(folder, name), { recursive: true })
  const write = (name: string, content: Uint8Array | string): void => writeFileSync(join(folder, 'tree', name), content)
  for (let i = 0; i < 9; i += 1) write(`small/${i}`, `the content of file ${i}\n`.repeat(i))
  write('early', Buffer.alloc(0x9000, 'early text '))
  write('late', Buffer.concat([Buffer.alloc(0x4000, 1), Buffer.alloc(0x4000, 2), Buffer.alloc(99, 3)]))
  write('same', Buffer.alloc(0x4000, 2))
  write('other', 'another file')
  linkSync(join(folder, 'tree/other'), join(folder, 'tree/hard'))
  symlinkSync('late', join(folder, 'tree/link'))
  writeFileSync(join(folder, 'list.json'), JSON.stringify(LIST))
  await ours(
    ...Object.entries(KINDS).map(([kind, flags]) => [
      'create',
      '-l',
      'error',
      ...flags,
      '-D',
      'blobs',
      '-B',
      `${kind}.boot`,
      'tree',
    ]),
  )
})
after(() => rmSync(folder, { recursive: true, force: true }))

async function ours(...commands: string[][]): Promise<Ran[]> {
  const all = await runAll(commands, folder)
  for (const [i, { exit, stderr }] of all.entries()) assert.equal(exit, 0, `${commands[i]?.join(' ')}\n${stderr}`)
  return all
}

const optimize = (kind: string, ...more: string[]): string[] => [
  'optimize',
  '-B',
  `${kind}.boot`,
  '-p',
  'list.json',
  '-D',
  'blobs',
  '-O',
  `${kind}.opt`,
  '--output-blob-dir',
  'blobs',
  ...more,
]
const open = (name: string): Bootstrap => openBootstrap(readFileSync(join(folder, name)))

/** Blob and number of each chunk of a file. */
function chunksOf(image: Bootstrap, path: string): string[] {
  let ino = image.root
  for (const name of path.split('/').filter(Boolean)) ino = image.lookup(ino, Buffer.from(name)) ?? -1
  const spans: ChunkSpan[] = []
  spans.length = image.chunks(ino, 0, Number.MAX_SAFE_INTEGER, spans)
  return spans.map(({ blobIndex, chunkIndex }) => `${blobIndex}:${chunkIndex}`)
}

for (const kind of Object.keys(KINDS)) {
  test(`what is listed lies in one new blob in the order of the list, and every byte is right: ${kind}`, async () => {
    const [made] = await ours(
      optimize(kind, '-J', `${kind}.json`),
      ['check', '-D', 'blobs', `${kind}.opt`],
      ['diff', '--exit-code', `${kind}.boot`, `${kind}.opt`],
    )
    assert.match(
      made?.stderr ?? '',
      /WARN prefetch file path is not absolute, skipping: relative\n(?:.*WARN prefetch file \/(?:small|link|missing) is bad, skip it\n){3}/,
    )
    const image = open(`${kind}.opt`)
    // The chunk that two files share is there once; directories and symlinks bring nothing.
    assert.deepEqual(
      ['/late', '/small/3', '/hard', '/other', '/same'].map((path) => chunksOf(image, path)),
      [['1:1', '1:0', chunksOf(open(`${kind}.boot`), '/late')[2]], ['1:2'], ['1:3'], ['1:3'], ['1:0']],
    )
    const { blobs, compressor } = JSON.parse(readFileSync(join(folder, `${kind}.json`), 'utf8'))
    assert.deepEqual(
      blobs,
      image.blobs.map(({ id }) => id),
    )
    assert.equal(compressor, image.blobs[0]?.compression)
    assert.equal(image.blobs[1]?.chunkCount, 4)
    // Twice is the same, and the blob that is there already may stay.
    const before = readdirSync(join(folder, 'blobs'))
    const again = optimize(kind).map((word) => (word === `${kind}.opt` ? `${kind}.again` : word))
    await ours(again)
    assert.deepEqual(readdirSync(join(folder, 'blobs')), before)
    assert.ok(readFileSync(join(folder, `${kind}.again`)).equals(readFileSync(join(folder, `${kind}.opt`))))
  })

  test(`the original accepts it${['six', 'five', 'toc', 'plain'].includes(kind) ? ' and unpacks every byte' : ''}: ${kind}`, {
    skip: noPeer,
  }, async () => {
    await ours(optimize(kind))
    const original = (...args: string[]): void => {
      const { status, stderr } = spawnSync(peer, [...args, '-l', 'error'], {
        cwd: folder,
        encoding: 'utf8',
        timeout: 60_000,
      })
      assert.equal(status, 0, stderr)
    }
    original('check', '-B', `${kind}.opt`)
    if (kind === 'batch' || kind === 'encrypted') return
    for (const name of ['boot', 'opt'])
      original('unpack', '-D', 'blobs', '-B', `${kind}.${name}`, '--output', `${kind}.${name}.tar`)
    assert.ok(readFileSync(join(folder, `${kind}.opt.tar`)).equals(readFileSync(join(folder, `${kind}.boot.tar`))))
  })
}

test('the prefetch blob of an image of v5 is byte for byte that of the original', { skip: noShared }, async () => {
  const shared = ['images', 'sources', 'blobs'].map((name) => sharedPath(name))
  const [images = '', sources = '', blobs = ''] = shared
  mkdirSync(join(folder, 'fixture'))
  await ours([
    'optimize',
    '-B',
    `${images}/v5-tar-zstd/bootstrap`,
    '-p',
    `${sources}/prefetch.json`,
    '-D',
    blobs,
    '-O',
    'fixture.boot',
    '--output-blob-dir',
    'fixture',
  ])
  const wanted = JSON.parse(readFileSync(`${images}/v5-optimize/image.json`, 'utf8')).new_blobs as string[]
  assert.deepEqual(readdirSync(join(folder, 'fixture')), wanted)
  assert.ok(readFileSync(join(folder, 'fixture', wanted[0] ?? '')).equals(readFileSync(join(blobs, wanted[0] ?? ''))))
})

test('data of a reference to a gzip layer is copied too', { skip: noShared }, async () => {
  const image = sharedPath('images/v6-zran-gzip-plain/bootstrap')
  const { id, metaBlobId } = openBootstrap(readFileSync(image)).blobs[0] ?? { id: '', metaBlobId: undefined }
  mkdirSync(join(folder, 'layer'))
  symlinkSync(sharedPath('sources/core.tar.gz'), join(folder, 'layer', id))
  symlinkSync(sharedPath('blobs', metaBlobId ?? ''), join(folder, 'layer', metaBlobId ?? ''))
  const list = sharedPath('sources/prefetch.json')
  await ours(
    ['optimize', '-B', image, '-p', list, '-D', 'layer', '-O', 'layer.opt', '--output-blob-dir', 'layer'],
    ['diff', '--exit-code', image, 'layer.opt'],
  )
  const [reference, copied] = open('layer.opt').blobs
  assert.deepEqual([reference?.id, reference?.metaBlobId], [id, metaBlobId])
  assert.deepEqual([copied?.compression, copied?.chunkCount], ['zstd', 5])
  await ours(['check', '-D', 'layer', 'layer.opt'])
  // The data is that of the copy.
  const path = join(folder, 'layer', copied?.id ?? '')
  const bytes = readFileSync(path)
  bytes[0] = (bytes[0] ?? 0) ^ 1
  writeFileSync(path, bytes)
  const [damaged] = await runAll([['check', '-D', 'layer', 'layer.opt']], folder)
  assert.equal(damaged?.exit, 1)
  assert.ok(damaged.stderr.includes(copied?.id ?? 'no blob'), damaged.stderr)
})

for (const flags of [[], ['--digester', 'sha256']])
  test(`what several layers have is copied once, and all of their files are read from there: ${flags.at(-1) ?? 'all alike'}`, async () => {
    const layers = ['lower', 'upper'].map((name) => `${name}${flags.length}`)
    for (const name of layers) {
      mkdirSync(join(folder, name))
      writeFileSync(join(folder, name, `of ${name}`), Buffer.alloc(0x5000, 'in both layers '))
      writeFileSync(join(folder, name, 'own'), name)
    }
    const [lower = '', upper = ''] = layers
    const create = (name: string, more: readonly string[]): string[] => [
      'create',
      '-l',
      'error',
      '--chunk-size',
      '0x4000',
      ...more,
      '-D',
      'blobs',
      '-B',
      `${name}.boot`,
      name,
    ]
    await ours(create(lower, []), create(upper, flags))
    const ids = layers.map((name) => open(`${name}.boot`).blobs[0]?.id).join()
    const both = `both${flags.length}`
    writeFileSync(
      join(folder, 'both.json'),
      JSON.stringify({ version: 'v1', files: layers.map((name) => ({ path: `/of ${name}` })) }),
    )
    await ours(['merge', '-B', `${both}.boot`, '--original-blob-ids', ids, `${lower}.boot`, `${upper}.boot`])
    await ours(optimize(both).map((word) => (word === 'list.json' ? 'both.json' : word)))
    const image = open(`${both}.opt`)
    for (const name of layers) assert.deepEqual(chunksOf(image, `/of ${name}`), ['2:0', '2:1'])
    assert.equal(image.blobs[2]?.chunkCount, 2)
    await ours(['check', '-D', 'blobs', `${both}.opt`])
    const unpack = (name: string): string[] => ['unpack', '-D', 'blobs', '--output', `${name}.tar`, name]
    await ours(unpack(`${both}.boot`), unpack(`${both}.opt`))
    assert.ok(readFileSync(join(folder, `${both}.opt.tar`)).equals(readFileSync(join(folder, `${both}.boot.tar`))))
  })

test('the prefetch table of an image stays', async () => {
  const { status } = spawnSync(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      join(import.meta.dirname, 'index.ts'),
      'create',
      '-l',
      'error',
      '--prefetch-policy',
      'fs',
      '-D',
      'blobs',
      '-B',
      'table.boot',
      'tree',
    ],
    { cwd: folder, input: '/small\n/late\n' },
  )
  assert.equal(status, 0)
  await ours(optimize('table'))
  const [found, wanted] = [open('table.opt'), open('table.boot')]
  assert.equal(wanted.prefetch().length, 2)
  assert.deepEqual(found.prefetch().length, 2)
  assert.equal(found.prefetch()[1], found.lookup(found.root, Buffer.from('late')))
})

test('a list without anything that could be copied gives the image as it was, and says so', async () => {
  writeFileSync(join(folder, 'empty.json'), ' \n')
  const before = readdirSync(join(folder, 'blobs'))
  const [made] = await ours([
    'optimize',
    '-B',
    'six.boot',
    '-p',
    'empty.json',
    '-D',
    'blobs',
    '-O',
    'empty.opt',
    '--output-blob-dir',
    'blobs',
    '-J',
    'empty-result.json',
  ])
  assert.match(made?.stderr ?? '', /WARN there is nothing to prefetch/)
  assert.deepEqual(readdirSync(join(folder, 'blobs')), before)
  assert.ok(readFileSync(join(folder, 'empty.opt')).equals(readFileSync(join(folder, 'six.boot'))))
})
