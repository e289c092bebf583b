import assert from 'node:assert/strict'
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import * as fc from 'fast-check'
import { listXattrs } from '../../kernel/index.ts'
import { type TarHeader, TarWriter } from '../../tar/index.ts'
import { unpackLayer } from './unpack-layer.ts'

const skip = process.geteuid?.() === 0 ? false : 'needs root (owners, devices, trusted attributes)'

type Member = Omit<Partial<TarHeader>, 'path' | 'link'> & {
  readonly path: string | Buffer
  readonly link?: string
  readonly content?: string
}

async function tarOf(members: readonly Member[]): Promise<Buffer> {
  const parts: Uint8Array[] = []
  const writer = new TarWriter((bytes) => void parts.push(Buffer.from(bytes)))
  for (const { path, link = '', content = '', type = 'file', ...rest } of members) {
    const bytes = Buffer.from(content)
    await writer.add(
      {
        mode: type === 'directory' ? 0o755 : 0o644,
        ...rest,
        type,
        path: Buffer.from(path),
        link: Buffer.from(link),
        size: bytes.length,
      },
      type === 'file' ? [bytes] : [],
    )
  }
  await writer.finish()
  return Buffer.concat(parts)
}

async function* pieces(bytes: Uint8Array, length = 1000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length)
}

/** A folder with a neighbour that a hostile layer would like to reach. */
function folderOf(t: TestContext): { readonly outside: string; readonly layer: string } {
  const outside = mkdtempSync(join(tmpdir(), 'demo-unpack-'))
  t.after(() => rmSync(outside, { recursive: true, force: true }))
  mkdirSync(join(outside, 'layer'))
  writeFileSync(join(outside, 'secret'), 'secret')
  return { outside, layer: join(outside, 'layer') }
}

async function unpack(layer: string, ...members: Member[]): Promise<void> {
  await unpackLayer(pieces(await tarOf(members)), layer)
}

function xattr(path: string, name: string): string | undefined {
  const found = listXattrs(path).find((one) => Buffer.from(one.name).toString() === name)
  return found && Buffer.from(found.value).toString()
}

test('files, links, devices and their attributes are unpacked as they are', { skip }, async (t) => {
  const { layer } = folderOf(t)
  const value = Buffer.from([0, 1, 255])
  await unpack(
    layer,
    { path: './', type: 'directory', mode: 0o711, mtimeSeconds: 5 },
    { path: 'd/', type: 'directory', mode: 0o2750, uid: 7, gid: 8, mtimeSeconds: 1_000_000_000 },
    {
      path: './d/suid',
      content: 'program',
      mode: 0o4755,
      uid: 70_000,
      gid: 80_000,
      mtimeSeconds: 1,
      mtimeNanoseconds: 5,
    },
    { path: 'd/hard', type: 'hardlink', link: './d/suid' },
    { path: 'd/soft', type: 'symlink', link: '/nowhere/at all', uid: 3, mtimeSeconds: 9 },
    { path: 'd/null', type: 'char', devMajor: 1, devMinor: 3, mode: 0o666 },
    { path: 'd/disk', type: 'block', devMajor: 259, devMinor: 70_000, mode: 0o660 },
    { path: 'd/pipe', type: 'fifo', mode: 0o622 },
    { path: 'd/old', content: 'x', mtimeSeconds: -100, mtimeNanoseconds: 5 },
    { path: Buffer.from([0x64, 0x2f, 0xff, 0xc3]), content: 'bytes' },
    { path: 'd/marked', content: 'x', xattrs: [{ name: Buffer.from('trusted.mark'), value }] },
  )
  const info = (name: string): Stats => lstatSync(join(layer, name))
  const suid = info('d/suid')
  assert.deepEqual([suid.mode & 0o7777, suid.uid, suid.gid, suid.nlink], [0o4755, 70_000, 80_000, 2])
  assert.equal(lstatSync(join(layer, 'd/suid'), { bigint: true }).mtimeNs, 1_000_000_005n)
  assert.equal(info('d/hard').ino, suid.ino)
  assert.equal(readlinkSync(join(layer, 'd/soft')), '/nowhere/at all')
  assert.deepEqual([info('d/soft').uid, info('d/soft').mtimeMs], [3, 9000])
  assert.deepEqual([info('d/null').isCharacterDevice(), info('d/null').rdev], [true, 0x103])
  assert.equal(info('d/null').mode & 0o777, 0o666)
  assert.deepEqual([info('d/disk').isBlockDevice(), info('d/disk').rdev], [true, 0x1111_0370])
  assert.ok(info('d/pipe').isFIFO())
  assert.equal(lstatSync(join(layer, 'd/old'), { bigint: true }).mtimeNs, -99_999_999_995n)
  assert.equal(readFileSync(Buffer.concat([Buffer.from(`${layer}/d/`), Buffer.from([0xff, 0xc3])]), 'utf8'), 'bytes')
  assert.equal(xattr(join(layer, 'd/marked'), 'trusted.mark'), value.toString())
  const d = info('d')
  assert.deepEqual([d.mode & 0o7777, d.uid, d.gid, d.mtimeMs], [0o2750, 7, 8, 1e12])
  assert.deepEqual([info('.').mode & 0o7777, info('.').mtimeMs], [0o711, 5000])
})

test('deletions become what overlayfs understands', { skip }, async (t) => {
  const { layer } = folderOf(t)
  await unpack(
    layer,
    { path: '.wh.gone' },
    { path: 'a/', type: 'directory' },
    { path: 'a/.wh..wh..opq' },
    { path: 'a/new', content: 'new' },
    { path: '.wh..wh.plnk/', type: 'directory' },
    { path: 'deep/er/.wh.x' },
    // Deleted and made again: the directory hides the one below; a file does so by itself.
    { path: '.wh.dir' },
    { path: 'dir/inside', content: 'x' },
    { path: '.wh.file' },
    { path: 'file', content: 'again' },
    { path: 'kept', content: 'kept' },
    { path: '.wh.kept' },
    { path: 'own/', type: 'directory' },
    { path: '.wh.own' },
  )
  for (const path of ['gone', 'deep/er/x']) {
    const info = lstatSync(join(layer, path))
    assert.deepEqual([info.isCharacterDevice(), info.rdev], [true, 0], path)
  }
  for (const path of ['a', 'dir', 'own']) assert.equal(xattr(join(layer, path), 'trusted.overlay.opaque'), 'y', path)
  assert.equal(xattr(join(layer, 'deep'), 'trusted.overlay.opaque'), undefined)
  assert.deepEqual(
    [readFileSync(join(layer, 'file'), 'utf8'), readFileSync(join(layer, 'kept'), 'utf8')],
    ['again', 'kept'],
  )
  assert.deepEqual(readdirSync(layer).sort(), ['a', 'deep', 'dir', 'file', 'gone', 'kept', 'own'])
})

test('links in the layer cannot lead out of it', { skip }, async (t) => {
  const { outside, layer } = folderOf(t)
  await unpack(
    layer,
    { path: 'up', type: 'symlink', link: '../../../..' },
    { path: 'up/secret', content: 'in' },
    { path: 'abs', type: 'symlink', link: outside },
    { path: 'abs/secret', content: 'in' },
    { path: 'abs/.wh.other' },
    { path: '/rooted', content: 'in' },
    { path: 'last', type: 'symlink', link: join(outside, 'secret') },
    { path: 'last', content: 'a file instead' },
    { path: 'dirlink', type: 'symlink', link: outside },
    { path: 'dirlink/', type: 'directory', mode: 0o700 },
  )
  assert.equal(readFileSync(join(outside, 'secret'), 'utf8'), 'secret')
  assert.deepEqual(readdirSync(outside).sort(), ['layer', 'secret'])
  assert.equal(readFileSync(join(layer, 'secret'), 'utf8'), 'in')
  assert.equal(readFileSync(join(layer, outside, 'secret'), 'utf8'), 'in')
  assert.ok(lstatSync(join(layer, outside, 'other')).isCharacterDevice())
  assert.equal(readFileSync(join(layer, 'last'), 'utf8'), 'a file instead')
  assert.ok(lstatSync(join(layer, 'dirlink')).isDirectory())
})

test('what no honest layer has is refused', { skip }, async (t) => {
  const hostile: Record<string, Member[]> = {
    'dots in a path': [{ path: '../escaped' }],
    'dots within': [{ path: 'a/../../escaped' }],
    'dots at the end': [{ path: 'a/..', type: 'directory' }],
    'a whiteout of the parent': [{ path: 'a/.wh...' }],
    'a whiteout of itself': [{ path: 'a/.wh..' }],
    'a whiteout of nothing': [{ path: 'a/.wh.' }],
    'a hard link out': [{ path: 'a', type: 'hardlink', link: '../secret' }],
    'a hard link to nothing': [{ path: 'a', type: 'hardlink', link: 'b' }],
    'a hard link to a directory': [
      { path: 'd/', type: 'directory' },
      { path: 'a', type: 'hardlink', link: 'd' },
    ],
    'links in a circle': [
      { path: 'a', type: 'symlink', link: 'b' },
      { path: 'b', type: 'symlink', link: 'a' },
      { path: 'a/x' },
    ],
    'a file as a directory': [{ path: 'a' }, { path: 'a/b' }],
    'no such device': [{ path: 'a', type: 'char', devMajor: 0x1000, devMinor: 0 }],
  }
  for (const [what, members] of Object.entries(hostile)) {
    const { outside, layer } = folderOf(t)
    await assert.rejects(unpack(layer, ...members), what)
    assert.deepEqual(readdirSync(outside).sort(), ['layer', 'secret'], what)
  }
})

test('attributes that steer overlayfs are not taken from a layer', { skip }, async (t) => {
  const { layer } = folderOf(t)
  const xattrs = [{ name: Buffer.from('trusted.overlay.redirect'), value: Buffer.from('/etc') }]
  await unpack(layer, { path: 'd/', type: 'directory', xattrs }, { path: 'd/f', content: 'x', xattrs })
  assert.deepEqual([listXattrs(join(layer, 'd')), listXattrs(join(layer, 'd/f'))], [[], []])
})

test('the last of several entries of one path wins', { skip }, async (t) => {
  const { layer } = folderOf(t)
  await unpack(
    layer,
    { path: 'a/', type: 'directory', mode: 0o700 },
    { path: 'a/b/c', content: 'lost' },
    { path: 'a', content: 'file' },
    { path: 'b', content: 'file' },
    { path: 'b/', type: 'directory', mode: 0o711 },
    { path: 'b/c', content: 'kept' },
    { path: 'b/', type: 'directory', mode: 0o755 },
  )
  assert.equal(readFileSync(join(layer, 'a'), 'utf8'), 'file')
  assert.equal(readFileSync(join(layer, 'b/c'), 'utf8'), 'kept')
  assert.equal(lstatSync(join(layer, 'b')).mode & 0o777, 0o755)
})

test('whatever a layer says, nothing outside of its directory changes', { skip }, async (t) => {
  const name = fc.constantFrom('a', 'b', '..', '.', '', '.wh.a', '.wh..wh..opq', '.wh...', 'secret', 'layer')
  const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => names.join('/'))
  const type = fc.constantFrom('file', 'directory', 'symlink', 'hardlink', 'fifo')
  const member = fc.record({ path, link: path.map((link) => `../${link}`), type, content: fc.constant('x') })
  const property = fc.asyncProperty(fc.array(member, { maxLength: 12 }), async (members) => {
    const { outside, layer } = folderOf(t)
    const ordered = members.map((one) => (one.type === 'hardlink' ? { ...one, link: one.link.slice(3) } : one))
    await unpack(layer, ...(ordered as Member[])).catch(() => undefined) // refused is as good as confined
    assert.deepEqual(readdirSync(outside).sort(), ['layer', 'secret'])
    assert.equal(readFileSync(join(outside, 'secret'), 'utf8'), 'secret')
    assert.equal(lstatSync(join(outside, 'secret')).nlink, 1)
    rmSync(outside, { recursive: true })
  })
  await fc.assert(property, { numRuns: 300 })
})
