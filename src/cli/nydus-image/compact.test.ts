import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { localfsBackend } from '../../backend/index.ts'
import { compactImage } from '../../builder/index.ts'
import { mountTmpfs, unmount } from '../../kernel/index.ts'
import { openBootstrap } from '../../rafs/index.ts'
import { withImageData } from './image-content.ts'
import { type Ran } from '../testing.ts'
import { runAll } from './testing.ts'

const peer = join(process.env['NYDUS_PEER_DIR'] ?? '', 'nydus-image')
const noPeer =
  process.env['NYDUS_PEER_DIR'] === undefined ? 'NYDUS_PEER_DIR is not set' : !existsSync(peer) && `there is no ${peer}`

const KINDS: Readonly<Record<string, readonly string[]>> = {
  six: [],
  five: ['-v', '5', '--compressor', 'lz4_block', '--digester', 'sha256'],
  toc: ['--features', 'blob-toc'],
}

/** Blobs that are left as they are. */
const FIXED: Readonly<Record<string, readonly string[]>> = {
  batch: ['--batch-size', '0x4000'],
  encrypted: ['--encrypt'],
}

let folder = ''
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'compact-'))
  mkdirSync(join(folder, 'blobs'))
  // Each layer hides half of the one below, repeats one of its files, and has two names for another.
  for (let layer = 0; layer < 3; layer += 1) {
    mkdirSync(join(folder, `layer-${layer}`))
    for (let i = 0; i < 6; i += 1)
      writeFileSync(join(folder, `layer-${layer}/file-${layer * 3 + i}`), `${layer} ${i}\n`.repeat(3000 + i * 500))
    linkSync(join(folder, `layer-${layer}/file-${layer * 3 + 5}`), join(folder, `layer-${layer}/hard-${layer}`))
    writeFileSync(join(folder, `layer-${layer}/same-${layer}`), 'the same in each layer\n'.repeat(1000))
  }
  const commands = Object.entries({ ...KINDS, ...FIXED }).flatMap(([kind, flags]) => [
    ...[0, 1, 2].map((layer) => [
      'create',
      '-l',
      'error',
      '--chunk-size',
      '0x4000',
      ...flags,
      '-D',
      'blobs',
      '--blob-id',
      `${kind}-${layer}`,
      '-B',
      `${kind}-${layer}`,
      `layer-${layer}`,
    ]),
    ['merge', '-l', 'error', '-B', `${kind}.boot`, `${kind}-0`, `${kind}-1`, `${kind}-2`],
  ])
  await ours(...commands)
})
after(() => rmSync(folder, { recursive: true, force: true }))

async function ours(...commands: string[][]): Promise<Ran[]> {
  const all = await runAll(commands, folder)
  for (const [i, { exit, stderr }] of all.entries()) assert.equal(exit, 0, `${commands[i]?.join(' ')}\n${stderr}`)
  return all
}

const blobsOf = (name: string): string[] => openBootstrap(readFileSync(join(folder, name))).blobs.map(({ id }) => id)

for (const kind of Object.keys(KINDS)) {
  test(`three layers that hide each other become one blob, and every byte is right: ${kind}`, async () => {
    const [made] = await ours(
      ['compact', '-B', `${kind}.boot`, '-D', 'blobs', '--min-used-ratio', '70', '-J', `${kind}.json`],
      ['check', '-D', 'blobs', `${kind}.bootstrap.compact`],
      ['diff', '--exit-code', `${kind}.boot`, `${kind}.bootstrap.compact`],
    )
    assert.match(
      made?.stderr ?? '',
      /INFO load bootstrap ".*" successfully\n[^]*INFO compactor: original blob size .*, used data ratio \d+%\n[^]*INFO compactor: successfully rebuild blob [0-9a-f]{64}\n.*INFO compactor: successfully compacted blob\n$/,
    )
    const { blobs, fs_version: version } = JSON.parse(readFileSync(join(folder, `${kind}.json`), 'utf8'))
    assert.equal(blobs.length, 1)
    assert.deepEqual(blobs, blobsOf(`${kind}.bootstrap.compact`))
    assert.equal(version, kind === 'five' ? '5' : '6')
    // Only what files use is in it, and what is the same in each layer once.
    const used = openBootstrap(readFileSync(join(folder, `${kind}.bootstrap.compact`))).layout(0)
    const chunks = Array.from({ length: used.chunkCount }, (_, at) => used.has(at))
    assert.ok(chunks.every(Boolean))
    // The original blobs are still there, and a second pass has nothing to do.
    assert.ok(existsSync(join(folder, 'blobs', `${kind}-0`)))
    const before = [readdirSync(folder), readdirSync(join(folder, 'blobs'))]
    const [again] = await ours([
      'compact',
      '-B',
      `${kind}.bootstrap.compact`,
      '-D',
      'blobs',
      '--min-used-ratio',
      '99',
      '-O',
      'never',
      '-J',
      'never.json',
    ])
    assert.match(again?.stderr ?? '', /INFO compactor: no chance to compact data blobs\n$/)
    assert.deepEqual([readdirSync(folder), readdirSync(join(folder, 'blobs'))], before)
  })

  test(`the original accepts the result and unpacks every byte: ${kind}`, { skip: noPeer }, async () => {
    await ours(['compact', '-B', `${kind}.boot`, '-D', 'blobs', '-O', `${kind}.peer`])
    const original = (...args: string[]): void => {
      const { status, stderr } = spawnSync(peer, [...args, '-l', 'error'], {
        cwd: folder,
        encoding: 'utf8',
        timeout: 60_000,
      })
      assert.equal(status, 0, stderr)
    }
    original('check', '-B', `${kind}.peer`)
    for (const name of ['boot', 'peer'])
      original('unpack', '-D', 'blobs', '-B', `${kind}.${name}`, '--output', `${kind}.${name}.tar`)
    assert.ok(readFileSync(join(folder, `${kind}.peer.tar`)).equals(readFileSync(join(folder, `${kind}.boot.tar`))))
  })
}

for (const kind of Object.keys(FIXED))
  test(`blobs of this kind are left as they are, however badly used: ${kind}`, async () => {
    const before = readdirSync(join(folder, 'blobs'))
    const compact = ['compact', '--min-used-ratio', '99', '-D', 'blobs']
    const [alone] = await ours([...compact, '-B', `${kind}.boot`, '-O', `${kind}.alone`])
    assert.match(alone?.stderr ?? '', /no chance to compact data blobs/)
    assert.ok(!existsSync(join(folder, `${kind}.alone`)))
    assert.deepEqual(readdirSync(join(folder, 'blobs')), before)
    // Others beside them are rebuilt, and they keep what it takes to read them.
    await ours(
      ['merge', '-l', 'error', '-B', `${kind}.mixed`, 'six-0', `${kind}-1`, 'six-2'],
      [...compact, '-B', `${kind}.mixed`, '-O', `${kind}.compact`],
      ['check', '-D', 'blobs', `${kind}.compact`],
      ['diff', '--exit-code', `${kind}.mixed`, `${kind}.compact`],
    )
    const blobs = blobsOf(`${kind}.compact`)
    assert.equal(blobs.length, 2)
    assert.ok(blobs.includes(`${kind}-1`))
  })

test('the limits decide; with a dictionary its blobs stay, and its chunks serve', async () => {
  const compact = ['compact', '-B', 'six.boot', '-D', 'blobs']
  const [few, small, sum] = await ours(
    [...compact, '--layers-to-compact', '4', '-O', 'few'],
    [...compact, '--compact-blob-size', '10', '-O', 'small'],
    [...compact, '--max-compact-size', '10', '-O', 'sum'],
    [...compact, '--chunk-dict', 'bootstrap=six-0', '-O', 'dictionary'],
    ['check', '-D', 'blobs', 'dictionary'],
    ['diff', '--exit-code', 'six.boot', 'dictionary'],
  )
  for (const ran of [few, small, sum]) assert.match(ran?.stderr ?? '', /no chance to compact data blobs/)
  for (const name of ['few', 'small', 'sum']) assert.ok(!existsSync(join(folder, name)))
  const blobs = blobsOf('dictionary')
  assert.equal(blobs.length, 2)
  assert.ok(blobs.includes('six-0'))
})

test('bad input is told, and leaves nothing', async () => {
  mkdirSync(join(folder, 'damaged'))
  for (const name of ['six-0', 'six-1', 'six-2']) {
    const bytes = readFileSync(join(folder, 'blobs', name))
    for (let at = 0; at < bytes.length; at += 7) bytes[at] = (bytes[at] ?? 0) ^ 0x55
    writeFileSync(join(folder, 'damaged', name), bytes)
  }
  const compact = ['compact', '-l', 'error', '-O', 'never', '-B']
  const wrong: ReadonlyArray<readonly [readonly string[], RegExp]> = [
    [[...compact, 'absent', '-D', 'blobs'], /No such file or directory \(os error 2\)/],
    [[...compact, 'six.boot', '-D', 'layer-0'], /cannot read blob six-\d/],
    [[...compact, 'six.boot', '-D', 'absent'], /cannot read blob six-\d|cannot write absent\/blob/],
    [[...compact, 'six.boot', '-D', 'damaged'], /chunk \d+ of blob six-\d is damaged/],
    [
      [...compact, 'six.boot', '-D', 'blobs', '--min-used-ratio', '100'],
      /^Error: invalid --min-used-ratio 100: 0 to 99 are possible\n$/,
    ],
    [
      [...compact, 'six.boot', '-D', 'blobs', '--max-compact-size', 'x1'],
      /^Error: invalid --max-compact-size x1\n\nCaused by:\n {4}invalid digit found in string\n$/,
    ],
    [
      [...compact, 'six.boot', '-D', 'blobs', '--layers-to-compact', '99999999999999999999'],
      /^Error: invalid --layers-to-compact 9{20}\n\nCaused by:\n {4}number too large to fit in target type\n$/,
    ],
    [
      [...compact, 'six.boot', '-D', 'blobs', '--min-used-ratio', ''],
      /^Error: invalid --min-used-ratio \n\nCaused by:\n {4}cannot parse integer from empty string\n$/,
    ],
    [[...compact, 'six.boot', '-D', 'blobs', '--chunk-dict', 'five-0'], /Inconsistent RAFS Filesystem/],
    [['compact', '-l', 'error', '-O', 'absent/never', '-B', 'six.boot', '-D', 'blobs'], /cannot write absent\/never/],
  ]
  const places = ['.', 'blobs', 'layer-0', 'damaged']
  const before = places.map((place) => readdirSync(join(folder, place)))
  const ran = await runAll(
    wrong.map(([args]) => args),
    folder,
  )
  for (const [i, { exit, stderr }] of ran.entries()) {
    assert.equal(exit, 1, stderr)
    assert.match(stderr, wrong[i]?.[1] ?? /never/)
  }
  assert.deepEqual(
    places.map((place) => readdirSync(join(folder, place))),
    before,
  )
})

test('a signal in the middle leaves nothing', async () => {
  const image = openBootstrap(readFileSync(join(folder, 'six.boot')))
  const backend = localfsBackend({ dir: join(folder, 'blobs') })
  const before = [readdirSync(folder), readdirSync(join(folder, 'blobs'))]
  const controller = new AbortController()
  await withImageData(image, backend, async (data) => {
    const work = compactImage(
      { image, backend, data, signal: controller.signal, onBytes: () => controller.abort(new Error('enough')) },
      {
        minUsedRatio: 99,
        compactBlobSize: 1e6,
        maxCompactSize: 1e6,
        minBlobs: 0,
        dictionary: undefined,
        bootstrapPath: join(folder, 'never'),
        blobFolder: join(folder, 'blobs'),
        onStep: () => undefined,
      },
    )
    await assert.rejects(work, /enough/)
  })
  await backend.close()
  assert.deepEqual([readdirSync(folder), readdirSync(join(folder, 'blobs'))], before)
})

test('a full disk leaves the blobs as they were', {
  skip: process.getuid?.() !== 0 && 'mounting a small disk needs root',
}, async () => {
  const small = join(folder, 'small-disk')
  mkdirSync(small)
  await mountTmpfs(small, 4096)
  try {
    const before = readdirSync(join(folder, 'blobs'))
    const [ran] = await runAll([['compact', '-B', 'six.boot', '-D', 'blobs', '-O', 'small-disk/boot']], folder)
    assert.equal(ran?.exit, 1)
    assert.match(ran?.stderr ?? '', /no space left on device/)
    assert.deepEqual([readdirSync(small), readdirSync(join(folder, 'blobs'))], [[], before])
  } finally {
    await unmount(small)
  }
})
