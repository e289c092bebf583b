/** What is built is a valid EROFS image: for fsck.erofs, and for the kernel, which reads uncompressed blobs as devices. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { lstatSync, mkdirSync, readFileSync, readlinkSync, readdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { knowsFileSystem, mountErofs, unmount } from '../kernel/index.ts'
import { Attributes, openBootstrap } from '../rafs/index.ts'
import { type ArchiveEntry, type BuiltForTest, buildTar, inodeContent, tarOf, temporary } from './testing.ts'

const noFsck = spawnSync('fsck.erofs', ['-V']).status === null ? 'needs fsck.erofs' : false
const noMount =
  process.getuid?.() !== 0 ? 'needs root to mount' : knowsFileSystem('erofs') ? false : 'this kernel has no EROFS'

function pattern(seed: number, size: number): Buffer {
  return Buffer.from(Array.from({ length: size }, (_unused, at) => (at * 7 + seed + (at >>> 9)) & 0xff))
}

const ENTRIES: readonly ArchiveEntry[] = [
  { path: 'd', type: 'directory' },
  ...Array.from(
    { length: 300 },
    (_unused, at): ArchiveEntry => ({
      path: `d/${'n'.repeat(at % 120)}${at}`,
      content: pattern(at, (at * 331) % 9000),
    }),
  ),
  { path: 'large', content: pattern(1, 3_000_001) },
  { path: 'again', content: pattern(1, 3_000_001) },
  { path: 'hard', type: 'hardlink', link: 'large' },
  { path: 'link', type: 'symlink', link: 'd/x' },
  { path: 'long-link', type: 'symlink', link: 'y/'.repeat(2000) },
  { path: 'null', type: 'char', devMajor: 1, devMinor: 3 },
  {
    path: 'x',
    content: Buffer.from('x'),
    xattrs: [
      { name: Buffer.from('user.one'), value: Buffer.from('1') },
      { name: Buffer.from('trusted.two'), value: Buffer.alloc(500, 2) },
    ],
  },
]

/** A device holds the chunks where the uncompressed address space has them: what the cache's data file is. */
function device(folder: string, built: BuiltForTest): string {
  const image = openBootstrap(built.bootstrap)
  const path = join(folder, 'device')
  const size = image.blobs[0]?.uncompressedSize ?? 0
  const bytes = Buffer.alloc(size)
  const layout = image.layout(0)
  for (let index = 0; index < layout.chunkCount; index += 1) {
    const info = {
      index: 0,
      compressedOffset: 0,
      compressedSize: 0,
      uncompressedOffset: 0,
      uncompressedSize: 0,
      compressed: false,
      encrypted: false,
      batchOffset: 0,
      batchSize: 0,
      crc32c: undefined,
      digest: new Uint8Array(32),
    }
    layout.chunk(index, info)
    built.blob.copy(bytes, info.uncompressedOffset, info.compressedOffset, info.compressedOffset + info.compressedSize)
  }
  writeFileSync(path, bytes)
  truncateSync(path, size)
  return path
}

test('fsck.erofs finds nothing, with data and without', { skip: noFsck }, async (t) => {
  const folder = temporary(t)
  for (const chunkSize of [0x1000, 0x1_0000, 0x10_0000]) {
    const built = await buildTar(await tarOf(ENTRIES), { compression: 'none', chunkSize })
    writeFileSync(join(folder, 'image'), built.bootstrap)
    const { status, stderr } = spawnSync(
      'fsck.erofs',
      [`--device=${device(folder, built)}`, '--extract', join(folder, 'image')],
      { encoding: 'utf8', timeout: 120_000 },
    )
    assert.equal(status, 0, stderr)
  }
})

test("the kernel's EROFS shows every byte of an uncompressed image", { skip: noMount }, async (t) => {
  const folder = temporary(t)
  const built = await buildTar(await tarOf(ENTRIES), { compression: 'none', chunkSize: 0x1_0000 })
  const at = join(folder, 'mnt')
  mkdirSync(at)
  writeFileSync(join(folder, 'image'), built.bootstrap)
  await mountErofs(join(folder, 'image'), at, [device(folder, built)])
  try {
    compareMount(at, built)
  } finally {
    await unmount(at)
  }
})

function compareMount(at: string, built: BuiltForTest): void {
  const image = openBootstrap(built.bootstrap)
  const attributes = new Attributes()
  const open: Array<readonly [string, number]> = [['', image.root]]
  let compared = 0
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const [path, directory] = next
    const names = new Set(readdirSync(join(at, path)))
    image.list(directory, 0, (raw, ino) => {
      const name = Buffer.from(raw).toString()
      const shown = join(at, path, name)
      assert.ok(names.delete(name), shown)
      image.attributes(ino, attributes)
      const found = lstatSync(shown)
      assert.equal(found.mode, attributes.mode, shown)
      if (found.isDirectory()) open.push([`${path}/${name}`, ino])
      else if (found.isSymbolicLink()) assert.equal(readlinkSync(shown), Buffer.from(image.readlink(ino)).toString())
      else if (found.isFile()) assert.ok(readFileSync(shown).equals(inodeContent(image, [built.blob], ino)), shown)
      compared += 1
      return true
    })
    assert.equal(names.size, 0)
  }
  assert.equal(compared, ENTRIES.length)
}
