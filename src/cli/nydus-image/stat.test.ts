import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { noShared, sharedPath } from '../testing.ts'
import { recordingFolder, run, runAll } from './testing.ts'

interface Recorded {
  readonly id: string
  readonly bootstrap?: string
  readonly stat?: unknown
}

/** Images of which the original reads other chunks than their files have, or that are none. */
const NOT_COMPARED = new Map([
  ['v5-upper-tar-parent', 'its chunk numbers are used twice; the original cannot read it'],
  ['v6-merge-mixed', 'the original leaves out chunks of the blob that is digested in another way'],
  ['v6-tarfs-lower', 'the original counts wrong sizes of last chunks, and takes all chunks for one'],
  ['v6-tarfs-upper', 'as v6-tarfs-lower'],
  ['v6-tarfs-third', 'as v6-tarfs-lower'],
  ['v6-merge-tarfs', 'as v6-tarfs-lower'],
])

describe('statistics of images of the original', { skip: noShared }, async () => {
  if (noShared !== false) return
  const { images } = JSON.parse(readFileSync(sharedPath('manifest.json'), 'utf8')) as { images: Array<{ id: string }> }
  const recorded = images
    .map(({ id }) => JSON.parse(readFileSync(sharedPath('images', id, 'image.json'), 'utf8')) as Recorded)
    .filter(({ stat }) => stat !== undefined)
  const folder = recordingFolder()
  after(() => rmSync(folder, { recursive: true, force: true }))
  const ran = await runAll(
    recorded.map(({ id, bootstrap = '' }) => ['stat', '-B', bootstrap, '-J', `work/o/${id}.json`]),
    folder,
  )
  for (const [i, { id, stat }] of recorded.entries()) {
    test(`stat ${id}`, { skip: NOT_COMPARED.get(id) ?? false }, () => {
      assert.equal(ran[i]?.exit, 0, ran[i]?.stderr)
      assert.deepEqual(JSON.parse(readFileSync(join(folder, `work/o/${id}.json`), 'utf8')), stat)
    })
  }
})

const PEER = join(process.env['NYDUS_PEER_DIR'] ?? '', 'nydus-image')
const noPeer =
  process.env['NYDUS_PEER_DIR'] === undefined ? 'NYDUS_PEER_DIR is not set' : !existsSync(PEER) && `there is no ${PEER}`

describe('stat', () => {
  const IMAGES = join(import.meta.dirname, '../../rafs/testdata')
  let folder = ''
  before(() => {
    folder = recordingFolder()
    mkdirSync(join(folder, 'many'))
    for (const [name, image] of [
      ['v6-merge3', 'v6-merge3'],
      ['again', 'v6-merge3'],
      ['v6-upper-tar', 'v6-upper-tar'],
    ] as const)
      symlinkSync(join(IMAGES, `${image}.bootstrap`), join(folder, 'many', name))
    writeFileSync(join(folder, 'many/notes'), 'no image')
    writeFileSync(join(folder, 'many/other.boot'), 'a name with an extension')
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  test('reports are the words of the original', { skip: noPeer }, () => {
    for (const args of [
      ['-B', 'many/v6-upper-tar'],
      ['-D', 'many'],
      ['-D', 'many', '-T', 'many/v6-upper-tar'],
      ['-B', 'many/v6-merge3', '-T', 'many/v6-upper-tar'],
    ]) {
      const wanted = spawnSync(PEER, ['stat', '-l', 'error', ...args], { cwd: folder, encoding: 'utf8' })
      const found = run(['stat', ...args], folder)
      assert.deepEqual([found.exit, found.stdout], [wanted.status, wanted.stdout], args.join(' '))
    }
  })

  test('a folder counts each chunk once, a target what the folder has already', () => {
    const { exit, stderr } = run(['stat', '-D', 'many', '-T', 'many/v6-upper-tar', '-J', 'out.json'], folder)
    assert.equal(exit, 0, stderr)
    const {
      dedup_enabled: isDeduplicated,
      target_enabled: hasTarget,
      base_image: base,
      target_image: target,
    } = JSON.parse(readFileSync(join(folder, 'out.json'), 'utf8')) as {
      dedup_enabled: boolean
      target_enabled: boolean
      base_image: Record<string, number>
      target_image: Record<string, number>
    }
    assert.deepEqual([isDeduplicated, hasTarget], [true, true])
    assert.ok((base['dedup_chunks'] ?? 0) > 0 && (base['dedup_chunks'] ?? 0) < (base['own_chunks'] ?? 0))
    assert.ok((target['ref_chunks'] ?? 0) > 0)
    assert.equal((target['ref_chunks'] ?? 0) + (target['own_chunks'] ?? 0), 14)
  })

  test('an image in the folder that is damaged is told, what is no image is not, what cannot be read is an error', () => {
    const image = readFileSync(join(IMAGES, 'v6-upper-tar.bootstrap'))
    mkdirSync(join(folder, 'mixed'))
    writeFileSync(join(folder, 'mixed/whole'), image)
    writeFileSync(join(folder, 'mixed/cut'), image.subarray(0, 6000))
    writeFileSync(join(folder, 'mixed/damaged'), Buffer.from(image).fill(0, 4096))
    writeFileSync(join(folder, 'mixed/notes'), 'no image')
    writeFileSync(join(folder, 'mixed/empty'), '')
    const { exit, stderr } = run(['stat', '-D', 'mixed', '-J', 'mixed.json'], folder)
    assert.equal(exit, 0, stderr)
    assert.deepEqual(
      stderr
        .trimEnd()
        .split('\n')
        .map((line) => /WARN an image is left out: ([^:]*): ./.exec(line)?.[1]),
      ['mixed/cut', 'mixed/damaged'],
      stderr,
    )
    const { base_image: base } = JSON.parse(readFileSync(join(folder, 'mixed.json'), 'utf8')) as {
      base_image: Record<string, number>
    }
    assert.ok((base['files'] ?? 0) > 0)
    symlinkSync('/proc/self/mem', join(folder, 'mixed/unreadable'))
    const unread = run(['stat', '-D', 'mixed', '-J', 'never.json'], folder)
    assert.equal(unread.exit, 1)
    assert.match(unread.stderr, /cannot read the bootstrap mixed\/unreadable/)
    assert.ok(!existsSync(join(folder, 'never.json')))
  })

  test('tarfs has sizes of chunks without having records of them', () => {
    const image = join(IMAGES, 'v6-tarfs-third.bootstrap')
    const { exit, stderr } = run(['stat', '-B', image, '-J', 'tarfs.json'], folder)
    assert.equal(exit, 0, stderr)
    const { base_image: base } = JSON.parse(readFileSync(join(folder, 'tarfs.json'), 'utf8')) as {
      base_image: Record<string, number>
    }
    assert.deepEqual([base['chunks'], base['own_chunks'], base['own_comp_size']], [5, 5, base['file_size']])
  })

  for (const [args, message] of [
    [['-T', 'many/v6-upper-tar'], /one of `--bootstrap` and `--blob-dir` must be specified/],
    [['-B', 'many/notes'], /invalid RAFS superblock/],
    [['-D', 'many', '-T', 'nothing'], /No such file or directory/],
    [['-B', 'many/v6-upper-tar', '-J', 'nowhere/out.json'], /Output file "nowhere\/out.json" can't be opened/],
  ] as const) {
    test(`stat ${args.join(' ')} is refused`, () => {
      const { exit, stderr } = run(['stat', ...args], folder)
      assert.equal(exit, 1)
      assert.match(stderr, message)
    })
  }
})
