/** `create -t estargztoc-ref` and what is made of its images, through the tool; nydusd mounts them with the layer as their blob. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { localConfig, Scratch, treeDifferences } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { noShared, sharedPath } from '../src/cli/testing.ts'
import { run, runAll } from '../src/cli/nydus-image/testing.ts'

const ID = '528cc34b3cd52cf7425a84fbd9b3b5812d34182fe26b36ee7bbd2710648f0723'
const LAYER = sharedPath('sources/lower.estargz.tar.gz')
const TOC = sharedPath('sources/lower.estargz.toc.json')
const TREE = sharedPath('trees/lower.tar.v6.jsonl')
/** JSON has no bytes that are no UTF-8, and the writer of the table rounded times. */
const UNTOLD = /%|nonutf8|^\/mtimes\/|^\/names: size/

interface Entry {
  readonly path: string
  readonly size?: number
  readonly sha256?: string
}

function largest(): Entry {
  const lines = readFileSync(TREE, 'utf8').trimEnd().split('\n')
  return lines
    .map((line) => JSON.parse(line) as Entry)
    .reduce((found, entry) => ((entry.size ?? 0) > (found.size ?? 0) ? entry : found))
}

describe('images over eStargz layers', { skip: noShared }, () => {
  if (noShared !== false) return
  const folder = mkdtempSync(join(tmpdir(), 'nydus-stargz-'))
  after(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'blobs'))
  const create = (...args: readonly string[]): ReturnType<typeof run> =>
    run(['create', '-t', 'estargztoc-ref', '--blob-id', ID, ...args], folder)
  const size = statSync(LAYER).size.toString(16)
  const built = create(
    '-l',
    'error',
    '--blob-data-size',
    size,
    '-D',
    'blobs',
    '-B',
    'image.boot',
    '-J',
    'image.json',
    TOC,
  )
  assert.equal(built.exit, 0, built.stderr)
  copyFileSync(LAYER, join(folder, 'blobs', ID))

  test('what is written tells where the chunks are', () => {
    const result = JSON.parse(readFileSync(join(folder, 'image.json'), 'utf8')) as Record<string, unknown>
    assert.deepEqual([result['blobs'], result['compressor'], result['fs_version']], [[ID], 'gzip', '6'])
    assert.equal(readdirSync(join(folder, 'blobs')).length, 2)
  })

  test('without a place for that the bootstrap is the same, and it is told', () => {
    const { exit, stderr } = create('--blob-data-size', `0x${size}`, '-B', 'alone.boot', TOC)
    assert.equal(exit, 0, stderr)
    assert.match(stderr, /WARN only the bootstrap was written/)
    assert.ok(readFileSync(join(folder, 'alone.boot')).equals(readFileSync(join(folder, 'image.boot'))))
  })

  test('check verifies every chunk', () => {
    const { exit, stderr } = run(['check', '-l', 'error', 'image.boot', '-D', 'blobs'], folder)
    assert.equal(exit, 0, stderr)
    mkdirSync(join(folder, 'damaged'))
    const layer = readFileSync(LAYER)
    layer.fill(0, 200_000, 200_100)
    writeFileSync(join(folder, 'damaged', ID), layer)
    const damaged = run(['check', '-l', 'error', 'image.boot', '-D', 'damaged'], folder)
    assert.equal(damaged.exit, 1)
    assert.match(damaged.stderr, /chunk \d+ \(bytes \d+ to \d+\): /)
  })

  test('unpack gives the files of the layer', () => {
    const { exit, stderr } = run(
      ['unpack', '-l', 'error', 'image.boot', '-D', 'blobs', '--output', 'image.tar'],
      folder,
    )
    assert.equal(exit, 0, stderr)
    const { path, sha256 } = largest()
    const file = execFileSync('tar', ['-xOf', join(folder, 'image.tar'), path.slice(1)], { maxBuffer: 64 << 20 })
    assert.equal(createHash('sha256').update(file).digest('hex'), sha256)
  })

  test('nydusd shows the tree of the layer', { skip: whyNoFuse() }, async () => {
    await using scratch = new Scratch()
    const daemon = await scratch.nydusd(['--log-level', 'warn'])
    const answer = await daemon.api('POST', '/api/v1/mount?mountpoint=/s', {
      source: join(folder, 'image.boot'),
      fs_type: 'rafs',
      config: localConfig(join(folder, 'blobs'), scratch.cache),
    })
    assert.equal(answer.status, 204, answer.text)
    const differences = treeDifferences(join(scratch.mnt, 's'), TREE)
    assert.deepEqual(
      differences.filter((line) => !UNTOLD.test(line)),
      [],
    )
    assert.equal(daemon.log, '')
  })

  test('what contradicts itself is refused, and nothing is written', async () => {
    const before = readdirSync(folder)
    const cases = [
      [['--blob-data-size', 'xyz'], /invalid blob data size xyz/],
      [['--blob-data-size', '100'], /at byte \d+ of a layer of 256 bytes/],
      [['--blob-data-size', size, '--chunk-size', '0x1000'], /--chunk-size must be that of the layer/],
      [['--blob-data-size', size, '--chunk-dict', 'image.boot'], /conflicts with '--chunk-dict'/],
      [['--blob-data-size', size, '--parent-bootstrap', 'image.boot'], /conflicts with '--parent-bootstrap'/],
      [['--blob-data-size', size, '--features', 'blob-toc'], /conflicts with '--features blob-toc'/],
    ] as const
    const ran = await runAll(
      cases.map(([args]) => ['create', '-t', 'estargztoc-ref', '--blob-id', ID, ...args, '-B', 'refused.boot', TOC]),
      folder,
    )
    for (const [i, [args, message]] of cases.entries()) {
      const { exit, stderr } = ran[i] ?? assert.fail('it was not run')
      assert.deepEqual([exit, message.test(stderr)], [1, true], `${args.join(' ')}: ${stderr}`)
    }
    assert.deepEqual(readdirSync(folder), before)
  })
})
