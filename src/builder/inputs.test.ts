/** Archives as people have them: what is in them is in the image, in both versions of RAFS. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type DumpEntry, dumpEntries, openBootstrap } from '../rafs/index.ts'
import { type ArchiveEntry, buildTar, contentOf, tarOf } from './testing.ts'

const anyBytes = Buffer.from(Array.from({ length: 255 }, (_unused, at) => (at + 1 === 0x2f ? 0x41 : at + 1)))
const largest = { name: Buffer.from(`user.${'n'.repeat(250)}`), value: Buffer.alloc(65_000, 7) }
const file = (path: string | Uint8Array, more: Partial<ArchiveEntry> = {}): ArchiveEntry => ({
  path,
  content: Buffer.from('content'),
  ...more,
})

async function built(archive: Uint8Array, version: 5 | 6): Promise<Map<string, DumpEntry>> {
  const { bootstrap } = await buildTar(archive, { version })
  return new Map([...dumpEntries(openBootstrap(bootstrap))].map((entry) => [entry.path, entry]))
}

for (const version of [5, 6] as const) {
  test(`RAFS v${version}: owners over 65,535, times before 1970 and after 2106`, async () => {
    const entries = await built(
      await tarOf([
        file('old', { mtimeSeconds: -86_400, uid: 4_294_967_294, gid: 70_000 }),
        file('late', { mtimeSeconds: 2 ** 33 }),
      ]),
      version,
    )
    const { mtime, uid, gid } = entries.get('/old') ?? assert.fail('old')
    assert.deepEqual([mtime, uid, gid], [-86_400, 4_294_967_294, 70_000])
    assert.equal(entries.get('/late')?.mtime, 2 ** 33)
  })

  test(`RAFS v${version}: a name of 255 bytes of any value, the longest target, and xattrs at their limits`, async () => {
    const { bootstrap } = await buildTar(
      await tarOf([file(anyBytes, { xattrs: [largest] }), { path: 'link', type: 'symlink', link: 'x'.repeat(4095) }]),
      { version },
    )
    const image = openBootstrap(bootstrap)
    const ino = image.lookup(image.root, anyBytes) ?? assert.fail('not there')
    assert.deepEqual(
      image.xattrs(ino).map(({ name, value }) => [Buffer.from(name), Buffer.from(value)]),
      [[largest.name, largest.value]],
    )
    const link = image.lookup(image.root, Buffer.from('link')) ?? assert.fail('no link')
    assert.equal(image.readlink(link).length, 4095)
  })

  test(`RAFS v${version}: 1,000 directories in each other`, async () => {
    const deep = Array.from({ length: 1000 }, (_unused, depth) => `d${depth}`).join('/')
    const { bootstrap, blob } = await buildTar(await tarOf([file(`${deep}/leaf`)]), { version })
    assert.equal(contentOf(openBootstrap(bootstrap), [blob], `${deep}/leaf`).toString(), 'content')
  })

  test(`RAFS v${version}: absolute names, ./ before them, later entries over earlier ones, garbage at the end`, async () => {
    const archive = await tarOf([
      file('./a'),
      file('/b/c', { mode: 0o600 }),
      file('b//./c', { mode: 0o640 }),
      { path: './', type: 'directory', mode: 0o711 },
    ])
    const entries = await built(Buffer.concat([archive, Buffer.from('garbage '.repeat(200))]), version)
    assert.deepEqual([...entries.keys()].sort(), ['/', '/a', '/b', '/b/c'])
    assert.equal(entries.get('/b/c')?.mode, '0640')
    assert.equal(entries.get('/')?.mode, '0711')
  })

  test(`RAFS v${version}: a directory, a file over it, a directory again with the same file in it`, async () => {
    const directory: ArchiveEntry = { path: 'a/', type: 'directory' }
    const archive = await tarOf([directory, file('a/x', { mode: 0o600 }), file('a'), directory, file('a/x')])
    const entries = await built(archive, version)
    assert.deepEqual([...entries.keys()], ['/', '/a', '/a/x'])
    assert.equal(entries.get('/a/x')?.size, 'content'.length)
  })
}
