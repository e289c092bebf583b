/** `export --block` against recorded disks of the original, and by mounting. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { knowsFileSystem, mountErofs, unmount } from '../../kernel/index.ts'
import { noShared, sharedPath } from '../testing.ts'
import { run } from './testing.ts'

function whyNoErofs(): string | false {
  if (process.getuid?.() !== 0) return 'needs root to mount'
  return knowsFileSystem('erofs') ? false : 'this kernel has no EROFS'
}

interface Recorded {
  readonly command: string
  readonly exit: number
  readonly stdout: string
  readonly sha256?: string
  readonly size?: number
}

const IDS = [
  'v6-dir-none',
  'v6-tar-zstd',
  'v6-tar-zstd-c4k',
  'v6-merge3',
  'v6-tarfs-lower',
  'v6-merge-tarfs',
  'v6-zran-gzip-plain',
  'v5-tar-zstd',
]

/** The layers that images refer to. */
function addLayers(blobs: string): void {
  const { derived_blobs: derived } = JSON.parse(readFileSync(sharedPath('manifest.json'), 'utf8')) as {
    derived_blobs: Record<string, { readonly gunzip?: string; readonly copy?: string }>
  }
  for (const [id, { gunzip, copy }] of Object.entries(derived)) {
    if (gunzip !== undefined) writeFileSync(join(blobs, id), gunzipSync(readFileSync(sharedPath(gunzip))))
    else if (copy !== undefined) symlinkSync(sharedPath(copy), join(blobs, id))
  }
}

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'nydus-export-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'blobs'))
  for (const id of readdirSync(sharedPath('blobs'))) symlinkSync(sharedPath('blobs', id), join(folder, 'blobs', id))
  return folder
}

function flipped(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes)
  copy[0] = (copy[0] ?? 0) ^ 1
  return copy
}

function digestOf(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex')
}

describe('disks recorded from the original', { skip: noShared }, () => {
  for (const id of IDS) {
    test(id, (t) => {
      const folder = folderOf(t)
      if (/tarfs|zran/.test(id)) addLayers(join(folder, 'blobs'))
      const wanted = JSON.parse(readFileSync(sharedPath('export', `${id}.json`), 'utf8')) as Recorded
      const verity = wanted.command.includes('--verity') ? ['--verity'] : []
      const boot = sharedPath('images', id, 'bootstrap')
      const ran = run(['export', '--block', '-B', boot, '-D', 'blobs', '-O', 'disk', ...verity], folder)
      assert.equal(ran.exit, wanted.exit, ran.stderr)
      assert.equal(ran.stdout, wanted.stdout)
      if (wanted.exit !== 0) return assert.match(ran.stderr, /RAFSv5 image is not supported/)
      assert.equal(statSync(join(folder, 'disk')).size, wanted.size)
      assert.equal(digestOf(join(folder, 'disk')), wanted.sha256)
    })
  }

  test('a BlobCacheEntry names bootstrap and backend, in both of its forms', (t) => {
    const folder = folderOf(t)
    const metadata_path = sharedPath('images/v6-tar-zstd/bootstrap')
    const localfs = { dir: join(folder, 'blobs') }
    for (const [name, entry] of [
      [
        'v2',
        { type: 'bootstrap', id: 'i', config_v2: { version: 2, backend: { type: 'localfs', localfs }, metadata_path } },
      ],
      [
        'v1',
        { type: 'bootstrap', id: 'i', config: { backend_type: 'localfs', backend_config: localfs, metadata_path } },
      ],
    ] as const) {
      writeFileSync(join(folder, `${name}.json`), JSON.stringify(entry))
      const ran = run(['export', '--block', '-C', `${name}.json`, '-O', name, '--verity'], folder)
      assert.equal(ran.exit, 0, ran.stderr)
      assert.equal(digestOf(join(folder, name)), '81ade78351794abe78ba3656e070cd43d968b0babef9080d324bf0dd60bb5723')
    }
  })

  test('the kernel mounts a disk, and its holes take no space', {
    skip: whyNoErofs(),
  }, async (t) => {
    const folder = folderOf(t)
    const boot = sharedPath('images/v6-tar-zstd/bootstrap')
    const ran = run(['export', '--block', '-B', boot, '-D', 'blobs', '-O', 'disk'], folder)
    assert.equal(ran.exit, 0, ran.stderr)
    const { size, blocks } = statSync(join(folder, 'disk'))
    assert.ok(blocks * 512 <= size, `${blocks * 512} of ${size} bytes`)
    mkdirSync(join(folder, 'mount'))
    await mountErofs(join(folder, 'disk'), join(folder, 'mount'), [])
    try {
      const lines = readFileSync(sharedPath('trees/lower.tar.v6.jsonl'), 'utf8').trimEnd().split('\n')
      let compared = 0
      for (const line of lines) {
        const entry = JSON.parse(line) as { path: string; type: string; sha256?: string }
        if (entry.sha256 === undefined || entry.path.includes('%')) continue
        assert.equal(digestOf(join(folder, 'mount', entry.path)), entry.sha256, entry.path)
        compared += 1
      }
      assert.ok(compared > 100, `${compared} files`)
    } finally {
      await unmount(join(folder, 'mount'))
    }
  })

  test('what is wrong is told, and nothing is left behind', (t) => {
    const folder = folderOf(t)
    const boot = sharedPath('images/v6-tar-none-sha256/bootstrap')
    const [id = ''] = (
      JSON.parse(readFileSync(sharedPath('images/v6-tar-none-sha256/output.json'), 'utf8')) as { blobs: string[] }
    ).blobs
    const blob = readFileSync(sharedPath('blobs', id))
    for (const [bytes, reason] of [
      [flipped(blob), /digest is/],
      [blob.subarray(0, blob.length - 5000), /truncated|BAD|does not fit/],
      [undefined, /there is no/],
    ] as const) {
      const blobs = mkdtempSync(join(folder, 'damaged-'))
      if (bytes !== undefined) writeFileSync(join(blobs, id), bytes)
      mkdirSync(join(blobs, 'out'))
      const ran = run(['export', '--block', '-B', boot, '-D', blobs, '-O', join(blobs, 'out/disk')], folder)
      assert.equal(ran.exit, 1)
      assert.match(ran.stderr, /failed to export RAFS filesystem as raw block device image/)
      assert.match(ran.stderr, reason)
      assert.deepEqual(readdirSync(join(blobs, 'out')), [])
    }
    for (const [args, exit] of [
      [['export', '--block', '-D', 'blobs', '-C', 'x'], 2],
      [['export', '--block', '-C', 'absent', '-O', 'disk'], 1],
    ] as const)
      assert.equal(run(args, folder).exit, exit)
  })
})

test('a gzip layer that is damaged, cut or missing ends the export, and nothing is left behind', {
  skip: noShared,
}, (t) => {
  const folder = folderOf(t)
  const image = (name: string): string => sharedPath('images/v6-zran-gzip-plain', name)
  const { blobs } = JSON.parse(readFileSync(image('output.json'), 'utf8')) as { blobs: string[] }
  const path = join(folder, 'blobs', blobs[0] ?? '')
  addLayers(join(folder, 'blobs'))
  const layer = readFileSync(path)
  const flip = Buffer.from(layer)
  flip[50_000] = (flip[50_000] ?? 0) ^ 0x10
  for (const [bytes, reason] of [
    [flip, /digest is|gzip: /],
    [layer.subarray(0, layer.length - 50_000), /truncated/],
    [undefined, /there is no/],
  ] as const) {
    rmSync(path, { force: true })
    if (bytes !== undefined) writeFileSync(path, bytes)
    const ran = run(['export', '--block', '-B', image('bootstrap'), '-D', 'blobs', '-O', 'disk'], folder)
    assert.equal(ran.exit, 1)
    assert.match(ran.stderr, reason)
    assert.deepEqual(readdirSync(folder), ['blobs'])
  }
})

test('images of external files cannot be exported, nor their data be checked: that is told', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'external-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  for (const name of ['source', 'blobs']) mkdirSync(join(folder, name))
  writeFileSync(join(folder, 'source/weights'), Buffer.alloc(4096, 1))
  const id = 'e'.repeat(64)
  const place = 'blob_index=0 chunk_size=4KiB chunk_0_compressed_offset=4096 compressed_size=20000'
  writeFileSync(join(folder, 'attributes'), `/weights type=external blob_id=${id} ${place} crcs=0x1\n`)
  const create = ['create', '-v', '5', '--chunk-size', '0x1000', '-l', 'error']
  const built = run([...create, '--attributes', 'attributes', '-D', 'blobs', '-B', 'image.boot', 'source'], folder)
  assert.equal(built.exit, 0, built.stderr)
  const before = readdirSync(folder)
  for (const [args, exit, words] of [
    [['check', 'image.external'], 0, /^$/],
    [['check', '-D', 'blobs', 'image.external'], 1, /its data is external, which this version cannot verify/],
    [['export', '--block', '-D', 'blobs', '-B', 'image.external', '-O', 'disk'], 1, /RAFSv5 image is not supported/],
    [['unpack', '-D', 'blobs', 'image.external', '--output', 'tar'], 1, /cannot open blob e+: there is no/],
  ] as const) {
    const ran = run([...args, '-l', 'error'], folder)
    assert.equal(ran.exit, exit, ran.stderr)
    assert.match(ran.stderr, words)
  }
  assert.deepEqual(readdirSync(folder), before)
})

/** As the original prints them. */
const ROOT_HASHES = {
  'v6-tar-zstd-batch': '5dfec1792ffc7b020c8facc1456e56c3001d77fd8d379e7cfc609835eaa883b4',
  'v6-tar-zstd-encrypt': 'c2d14236607ff94ec32ec4cfbacb94810690c8ef5e8b70dc7f6f34b4ebc201b2',
  'v6-tar-lz4-encrypt-batch': '03ba7c247b4b68decec228c30027607337fc254f75dbe12851cfe7dac5c2e490',
  'v6-tar-ref': 'd0c896117579b1601601fb92383261cd6069c0e5b6b7c1716a0476e9326dc692',
  'v6-merge-zran3': '580139ac6a73294330fdd80f385a95791ebfa0edf82a1c1cd58d387caab4ee15',
}

for (const [id, hash] of Object.entries(ROOT_HASHES))
  test(`batches, encryption and references are exported with the original's root hash: ${id}`, {
    skip: noShared,
  }, (t) => {
    const folder = folderOf(t)
    addLayers(join(folder, 'blobs'))
    const from = ['-B', sharedPath('images', id, 'bootstrap'), '-D', 'blobs']
    const { exit, stdout, stderr } = run(['export', '--block', '--verity', ...from, '-O', 'disk'], folder)
    assert.equal(exit, 0, stderr)
    assert.equal(stdout.trim().split(' ').at(-1), hash)
  })
