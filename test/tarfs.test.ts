/** `create -t tar-tarfs` and what is made of its images, through the tool; the kernel and nydusd mount them. */
import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { gunzipSync } from 'node:zlib'
import { localConfig, Scratch, type TestDaemon, treeDifferences } from '../src/daemon/testing.ts'
import { knowsFileSystem, mountErofs, unmount, whyNoFuse } from '../src/kernel/index.ts'
import { noShared, sharedPath } from '../src/cli/testing.ts'
import { run, TOOL } from '../src/cli/nydus-image/testing.ts'

const noErofs =
  process.getuid?.() !== 0 ? 'needs root to mount' : knowsFileSystem('erofs') ? false : 'this kernel has no EROFS'
const LAYERS = ['lower', 'upper', 'third'] as const
const TREE = sharedPath('trees/merged3.tarfs.v6.jsonl')
const peer = join(process.env['NYDUS_PEER_DIR'] ?? '', 'nydus-image')

/** The answer of the API may be here before the line of the log. */
async function logged(daemon: TestDaemon, line: RegExp): Promise<void> {
  for (let tries = 0; tries < 3000 && !line.test(daemon.log); tries += 1) await sleep(20)
  assert.match(daemon.log, line)
}

interface Entry {
  readonly path: string
  readonly size?: number
  readonly sha256?: string
}

function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

describe('images over plain tars', { skip: noShared }, () => {
  if (noShared !== false) return
  const folder = mkdtempSync(join(tmpdir(), 'nydus-tarfs-'))
  after(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'tars'))
  for (const name of LAYERS) {
    const tar = gunzipSync(readFileSync(sharedPath(`sources/${name}.tar.gz`)))
    writeFileSync(join(folder, 'tars', digestOf(tar)), tar)
    symlinkSync(join('tars', digestOf(tar)), join(folder, `${name}.tar`))
    const ran = run(
      ['create', '-l', 'error', '-t', 'tar-tarfs', '-D', '.', '-B', `${name}.boot`, `${name}.tar`],
      folder,
    )
    assert.equal(ran.exit, 0, ran.stderr)
  }
  const merged = run(
    ['merge', '-l', 'error', '-B', 'image.boot', '-J', 'image.json', ...LAYERS.map((name) => `${name}.boot`)],
    folder,
  )
  assert.equal(merged.exit, 0, merged.stderr)
  const { blobs } = JSON.parse(readFileSync(join(folder, 'image.json'), 'utf8')) as { blobs: string[] }

  const entries = readFileSync(TREE, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Entry)
  /** One of many chunks. */
  const FILE = entries.reduce((largest, entry) => ((entry.size ?? 0) > (largest.size ?? 0) ? entry : largest))

  test('nothing but bootstraps is written', () => {
    assert.deepEqual(
      readdirSync(folder).sort(),
      [...LAYERS.flatMap((name) => [`${name}.boot`, `${name}.tar`]), 'image.boot', 'image.json', 'tars'].sort(),
    )
    assert.equal(blobs.length, 3)
  })

  test('the kernel mounts the image with the tars as its devices', { skip: noErofs }, async () => {
    const at = join(folder, 'mount')
    mkdirSync(at)
    await mountErofs(
      join(folder, 'image.boot'),
      at,
      blobs.map((id) => join(folder, 'tars', id)),
    )
    try {
      assert.deepEqual(treeDifferences(at, TREE), [])
    } finally {
      await unmount(at)
    }
  })

  test('the kernel mounts the image as one disk, whose hash tree is right', { skip: noErofs }, async () => {
    const ran = run(['export', '--block', '-B', 'image.boot', '-D', 'tars', '-O', 'disk', '--verity'], folder)
    assert.equal(ran.exit, 0, ran.stderr)
    assert.match(
      ran.stdout,
      /^dm-verity options: .*--data-block-size=512 .*--data-blocks \d+ --hash-offset \d+ [0-9a-f]{64}\n$/,
    )
    const at = join(folder, 'mount-disk')
    mkdirSync(at)
    await mountErofs(join(folder, 'disk'), at, [])
    try {
      assert.deepEqual(treeDifferences(at, TREE), [])
    } finally {
      await unmount(at)
    }
  })

  test('nydusd mounts it with the tars in its cache directory', { skip: whyNoFuse() }, async () => {
    await using scratch = new Scratch()
    const daemon = await scratch.nydusd(['--log-level', 'warn'])
    const backend = scratch.folder('backend')
    const mount = (): ReturnType<typeof daemon.api> =>
      daemon.api('POST', '/api/v1/mount?mountpoint=/t', {
        source: join(folder, 'image.boot'),
        fs_type: 'rafs',
        config: localConfig(backend, scratch.cache),
      })
    const place = (size?: number): void => {
      for (const id of blobs) {
        rmSync(join(scratch.cache, id), { force: true })
        writeFileSync(join(scratch.cache, id), readFileSync(join(folder, 'tars', id)).subarray(0, size))
      }
    }
    assert.equal((await mount()).status, 500)
    await logged(daemon, /cannot open the tar .* must be there before it is mounted/)
    place(1000)
    assert.equal((await mount()).status, 500)
    await logged(daemon, /has 1000 bytes, the image wants \d+/)
    place()
    assert.equal((await mount()).status, 204, daemon.log)
    for (const id of blobs) truncateSync(join(scratch.cache, id), 512)
    assert.throws(() => readFileSync(join(scratch.mnt, 't', FILE.path)), /EIO/)
    for (const id of blobs) writeFileSync(join(scratch.cache, id), readFileSync(join(folder, 'tars', id)))
    assert.deepEqual(treeDifferences(join(scratch.mnt, 't'), TREE), [])
  })

  test('check asks for the tars, and unpack reads them', () => {
    const checked = run(['check', '-l', 'error', 'image.boot', '-D', 'tars'], folder)
    assert.equal(checked.exit, 0, checked.stderr)
    const missing = run(['check', '-l', 'error', 'image.boot', '-D', '.'], folder)
    assert.equal(missing.exit, 1)
    for (const id of blobs) assert.ok(missing.stderr.includes(`blob ${id}`), missing.stderr)
    const unpacked = run(['unpack', '-l', 'error', 'image.boot', '-D', 'tars', '--output', 'image.tar'], folder)
    assert.equal(unpacked.exit, 0, unpacked.stderr)
    const listed = execFileSync('tar', ['-tf', join(folder, 'image.tar')], { encoding: 'utf8' })
      .trimEnd()
      .split('\n')
    assert.equal(listed.length, entries.length - 1)
    const content = execFileSync('tar', ['-xOf', join(folder, 'image.tar'), FILE.path.slice(1)], {
      maxBuffer: 64 << 20,
    })
    assert.equal(digestOf(content), FILE.sha256)
  })

  test('the original accepts it', { skip: existsSync(peer) ? false : 'NYDUS_PEER_DIR is not set' }, () => {
    for (const name of [...LAYERS, 'image']) {
      const { status, stderr } = spawnSync(peer, ['check', '-B', join(folder, `${name}.boot`)], { encoding: 'utf8' })
      assert.equal(status, 0, stderr)
    }
  })

  test('a FIFO is read to its end, also behind the archive', async () => {
    execFileSync('mkfifo', [join(folder, 'fifo')])
    const tar = Buffer.concat([readFileSync(join(folder, 'third.tar')), Buffer.alloc(300_000)])
    const writer = spawn('sh', ['-c', 'cat > fifo'], { cwd: folder, stdio: ['pipe', 'ignore', 'ignore'] })
    writer.stdin.end(tar)
    const written = once(writer, 'close')
    const tool = spawn(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        TOOL,
        'create',
        '-l',
        'error',
        '-t',
        'tar-tarfs',
        '--blob-id',
        'abc',
        '-D',
        '.',
        '-B',
        'fifo.boot',
        '-J',
        'fifo.json',
        'fifo',
      ],
      { cwd: folder },
    )
    assert.deepEqual(await once(tool, 'close'), [0, null])
    assert.deepEqual(await written, [0, null])
    const result = JSON.parse(readFileSync(join(folder, 'fifo.json'), 'utf8')) as {
      blobs: string[]
      compressor: string
    }
    assert.deepEqual([result.blobs, result.compressor], [['abc'], 'none'])
  })

  test('layers over tars do not mix with others', () => {
    const parent = run(['merge', '-B', 'm', '--parent-bootstrap', 'lower.boot', 'upper.boot'], folder)
    assert.equal(parent.exit, 1)
    assert.match(parent.stderr, /merging RAFS in TARFS mode conflicts with `--parent-bootstrap`/)
    const mixed = run(['merge', '-B', 'm', 'lower.boot', sharedPath('images/v6-upper-tar/bootstrap')], folder)
    assert.equal(mixed.exit, 2)
    const below = run(
      ['merge', '-B', 'm', '--parent-bootstrap', 'lower.boot', sharedPath('images/v6-upper-tar/bootstrap')],
      folder,
    )
    assert.equal(below.exit, 1)
    assert.match(below.stderr, /over plain tars/)
    for (const [layer, boot] of [
      ['lower.tar', 'one.boot'],
      ['upper.tar', 'two.boot'],
    ] as const)
      assert.equal(
        run(['create', '-l', 'error', '-t', 'tar-tarfs', '--blob-id', 'same', '-D', '.', '-B', boot, layer], folder)
          .exit,
        0,
      )
    const same = run(['merge', '-B', 'm', 'one.boot', 'two.boot'], folder)
    assert.equal(same.exit, 1)
    assert.match(same.stderr, /two layers have the blob id same, and different blobs/)
    assert.ok(!existsSync(join(folder, 'm')))
  })
})
