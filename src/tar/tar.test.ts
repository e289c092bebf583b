import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import { TarError, type TarEntry, type TarHeader, TarReader, TarWriter } from './index.ts'

interface Read {
  readonly entry: TarEntry
  readonly content: Buffer
}

/** Reads an archive in pieces, and whole: what is at hand takes another way than what has to be waited for, and both say the same. */
async function readAll(archive: Uint8Array, pieceBytes = 10_007): Promise<Read[]> {
  const inPieces = await readPieces(archive, pieceBytes)
  assert.deepEqual(await readPieces(archive, archive.length), inPieces)
  return inPieces
}

async function readPieces(archive: Uint8Array, pieceBytes: number): Promise<Read[]> {
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < archive.length; at += pieceBytes) yield archive.subarray(at, at + pieceBytes)
  }
  const reader = new TarReader(pieces())
  const found: Read[] = []
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    const content = Buffer.alloc(entry.size)
    assert.equal(await reader.read(content), entry.size)
    found.push({ entry, content })
  }
  return found
}

async function write(entries: ReadonlyArray<{ header: TarHeader; content?: Uint8Array }>): Promise<Buffer> {
  const parts: Buffer[] = []
  const writer = new TarWriter((bytes) => void parts.push(Buffer.from(bytes)))
  for (const { header, content } of entries) await writer.add(header, content ? [content] : [])
  await writer.finish()
  return Buffer.concat(parts)
}

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
/** A copy as a plain Uint8Array, whatever class the view had. */
const plain = (view: Uint8Array): Uint8Array => Uint8Array.from(view)
/** The writer sorts records. */
const sortedXattrs = (xattrs: TarEntry['xattrs']): string[] =>
  xattrs.map(({ name, value }) => `${Buffer.from(name).toString('hex')}=${Buffer.from(value).toString('hex')}`).sort()
const pathByte = fc.integer({ min: 1, max: 255 })
const path = fc.uint8Array({ minLength: 1, maxLength: 400 }).map((raw) => raw.map((byte) => (byte === 0 ? 1 : byte)))
const header = fc.record({
  path,
  type: fc.constantFrom(
    'file' as const,
    'symlink' as const,
    'hardlink' as const,
    'directory' as const,
    'char' as const,
    'fifo' as const,
  ),
  link: path,
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.integer({ min: 0, max: 0xffff_ffff }),
  gid: fc.integer({ min: 0, max: 0xffff_ffff }),
  mtimeSeconds: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  mtimeNanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
  devMajor: fc.integer({ min: 0, max: 4095 }),
  devMinor: fc.integer({ min: 0, max: 1_048_575 }),
  xattrs: fc.uniqueArray(
    fc.record({
      name: fc.array(pathByte, { minLength: 1, maxLength: 20 }).map((b) => Uint8Array.from(b)),
      value: fc.uint8Array({ maxLength: 600 }),
    }),
    {
      maxLength: 3,
      selector: ({ name }) => Buffer.from(name).toString('latin1'),
    },
  ),
  content: fc.uint8Array({ maxLength: 1500 }),
})

test('what is written reads back: names, owners, times, devices, xattrs and content', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(header, { maxLength: 5 }),
      fc.integer({ min: 1, max: 2000 }),
      async (wanted, pieceBytes) => {
        const archive = await write(
          wanted.map(({ content, ...rest }) => ({
            header: { ...rest, size: content.length },
            content: rest.type === 'file' ? content : undefined,
          })),
        )
        assert.equal(archive.length % 512, 0)
        const found = await readAll(archive, pieceBytes)
        assert.equal(found.length, wanted.length)
        for (const [index, { entry, content }] of found.entries()) {
          const want = wanted[index]
          assert(want)
          assert.deepEqual(plain(entry.path), want.path)
          assert.equal(entry.type, want.type)
          if (want.type === 'symlink' || want.type === 'hardlink') assert.deepEqual(plain(entry.link), want.link)
          assert.deepEqual(
            [entry.mode, entry.uid, entry.gid, entry.mtimeSeconds, entry.mtimeNanoseconds],
            [want.mode, want.uid, want.gid, want.mtimeSeconds, want.mtimeNanoseconds],
          )
          if (want.type === 'char') assert.deepEqual([entry.devMajor, entry.devMinor], [want.devMajor, want.devMinor])
          assert.deepEqual(sortedXattrs(entry.xattrs), sortedXattrs(want.xattrs))
          assert.deepEqual(new Uint8Array(content), want.type === 'file' ? want.content : new Uint8Array(0))
        }
      },
    ),
    { numRuns: 200 },
  )
})

test('every truncation of an archive is a coded error or ends between entries', async () => {
  const archive = await write([
    { header: { path: bytes('a'), type: 'file', size: 700 }, content: new Uint8Array(700).fill(65) },
    { header: { path: bytes('long/'.repeat(80)), type: 'directory', mtimeNanoseconds: 5 } },
  ])
  for (let length = 0; length < archive.length; length += 37) {
    try {
      const found = await readAll(archive.subarray(0, length))
      assert.ok(found.length <= 2)
    } catch (error) {
      assert.ok(error instanceof TarError, String(error))
    }
  }
})

test('random damage gives a coded error or entries, never anything else', async () => {
  const archive = await write([
    {
      header: {
        path: bytes('x'.repeat(300)),
        type: 'file',
        size: 3,
        xattrs: [{ name: bytes('user.a'), value: bytes('b') }],
      },
      content: bytes('abc'),
    },
  ])
  for (let round = 0; round < 2000; round++) {
    const damaged = Buffer.from(archive)
    for (let flip = 0; flip < 3; flip++)
      damaged[Math.floor(Math.random() * damaged.length)] = Math.floor(Math.random() * 256)
    await readAll(damaged).catch((error: unknown) => assert.ok(error instanceof TarError, String(error)))
  }
})

for (const [name, change] of Object.entries({
  'should fail: a PAX record that lies about its length': (a: Buffer) => a.write('99', 512, 'latin1'),
  'should fail: a size that is negative': (a: Buffer) =>
    a.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 124),
  'should fail: an extended header of 8 GiB': (a: Buffer) => a.set([0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], 124),
})) {
  test(name, async () => {
    const archive = await write([{ header: { path: bytes('y'.repeat(300)), type: 'file' } }])
    change(archive)
    reseal(archive)
    await assert.rejects(readAll(archive), TarError)
  })
}

function reseal(archive: Buffer): void {
  archive.fill(32, 148, 156)
  const sum = archive.subarray(0, 512).reduce((total, byte) => total + byte, 0)
  archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
}

test('concatenated archives, missing final blocks, and garbage after the end', async () => {
  const one = await write([{ header: { path: bytes('one'), type: 'file', size: 1 }, content: bytes('1') }])
  const two = await write([{ header: { path: bytes('two'), type: 'fifo' } }])
  const names = async (archive: Buffer): Promise<string[]> =>
    (await readAll(archive)).map(({ entry }) => Buffer.from(entry.path).toString())
  assert.deepEqual(await names(Buffer.concat([one, two])), ['one', 'two'])
  assert.deepEqual(await names(one.subarray(0, -1024)), ['one'])
  assert.deepEqual(await names(Buffer.concat([one, Buffer.alloc(700, 'garbage')])), ['one'])
  assert.deepEqual(await names(Buffer.alloc(0)), [])
  await assert.rejects(readAll(Buffer.alloc(1024, 'no tar at all')), { code: 'BAD_CHECKSUM' })
})

test('a PAX header counts for one entry, a global one for all after it', async () => {
  const pax = (records: string, type: string): Buffer => {
    const head = Buffer.alloc(512)
    head.write('pax', 0)
    head.write(records.length.toString(8).padStart(11, '0'), 124)
    head.write(type, 156)
    reseal(head)
    return Buffer.concat([head, Buffer.from(records), Buffer.alloc((512 - (records.length % 512)) % 512)])
  }
  const entry = (await write([{ header: { path: bytes('f'), type: 'fifo' } }])).subarray(0, 512)
  const found = await readAll(Buffer.concat([pax('11 uid=777\n', 'g'), entry, pax('10 gid=12\n', 'x'), entry, entry]))
  assert.deepEqual(
    found.map(({ entry: { uid, gid } }) => [uid, gid]),
    [
      [777, 0],
      [777, 12],
      [777, 0],
    ],
  )
})

const hasTar = spawnSync('tar', ['--version']).stdout?.toString().includes('GNU tar') ?? false
for (const args of [
  ['--format=gnu', '--sparse'],
  ['--format=pax', '--sparse', '--sparse-version=0.0'],
  ['--format=pax', '--sparse', '--sparse-version=0.1'],
  ['--format=pax', '--sparse', '--sparse-version=1.0'],
  ['--format=ustar'],
  ['--format=v7'],
  ['--format=oldgnu'],
]) {
  test(`reads what GNU tar writes: ${args.join(' ')}`, { skip: !hasTar && 'GNU tar is not here' }, async () => {
    const home = mkdtempSync(join(tmpdir(), 'tar-test-'))
    try {
      const source = join(home, 's')
      mkdirSync(join(source, 'dir'), { recursive: true })
      const sparse = openSync(join(source, 'sparse'), 'w')
      for (let run = 0; run < 60; run++) writeSync(sparse, Buffer.alloc(4096, run + 1), 0, 4096, run * 65_536)
      ftruncateSync(sparse, 5_000_000)
      closeSync(sparse)
      writeFileSync(join(source, 'dir', 'plain'), 'hello')
      writeFileSync(join(source, 'empty-hole'), '')
      linkSync(join(source, 'dir', 'plain'), join(source, 'hard'))
      symlinkSync('dir/plain', join(source, 'soft'))
      utimesSync(join(source, 'empty-hole'), 1_000_000_000, 1_000_000_000)
      const { stdout, status } = spawnSync('tar', [...args, '-cf', '-', '--sort=name', '-C', source, '.'], {
        maxBuffer: 1 << 28,
      })
      assert.equal(status, 0)
      const found = new Map(
        (await readAll(stdout)).map((read) => [
          Buffer.from(read.entry.path).toString().replace(/^\.\//, '').replace(/\/$/, ''),
          read,
        ]),
      )
      assert.ok(found.get('sparse')?.content.equals(readFileSync(join(source, 'sparse'))))
      assert.equal(found.get('dir')?.entry.type, 'directory')
      assert.equal(found.get('dir/plain')?.content.toString(), 'hello')
      assert.equal(found.get('hard')?.entry.type, 'hardlink')
      assert.equal(Buffer.from(found.get('soft')?.entry.link ?? []).toString(), 'dir/plain')
      assert.equal(found.get('empty-hole')?.entry.mtimeSeconds, 1_000_000_000)
    } finally {
      rmSync(home, { recursive: true })
    }
  })
}

test('a hole of 64 GiB is told, not made', { skip: !hasTar && 'GNU tar is not here' }, async () => {
  const home = mkdtempSync(join(tmpdir(), 'tar-test-'))
  try {
    const fd = openSync(join(home, 'big'), 'w')
    writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, 2 ** 35)
    ftruncateSync(fd, 2 ** 36)
    closeSync(fd)
    const { stdout } = spawnSync('tar', ['--format=pax', '--sparse', '-cf', '-', '-C', home, 'big'], {
      maxBuffer: 1 << 28,
    })
    const reader = new TarReader(
      (async function* () {
        yield stdout
      })(),
    )
    const entry = await reader.next()
    assert.equal(entry?.size, 2 ** 36)
    assert.equal(reader.holeAhead(), 2 ** 35)
    reader.skipHole(2 ** 35)
    const data = Buffer.alloc(4097)
    assert.equal(await reader.read(data), 4097)
    assert.deepEqual([data[4095], data[4096]], [1, 0])
    assert.equal(reader.holeAhead(), 2 ** 36 - 2 ** 35 - 4097)
    assert.equal(await reader.next(), undefined)
  } finally {
    rmSync(home, { recursive: true })
  }
})

const fixtures = join(import.meta.dirname, '../../../shared/fixtures/sources')
let archives: string[] = []
try {
  archives = readdirSync(fixtures).filter((name) => name.endsWith('.tar') || name.endsWith('.tar.gz'))
} catch {
  // Not beside this clone: the test below says that it is skipped.
}
test('archives of the fixtures are read to their end', {
  skip: archives.length === 0 && 'no fixtures beside the repository',
}, async () => {
  for (const name of archives) {
    const raw = readFileSync(join(fixtures, name))
    const found = await readAll(raw[0] === 0x1f ? gunzipSync(raw) : raw)
    assert.ok(found.length > 0 || name.startsWith('empty'), name)
  }
})

test('zeros without end are refused', async () => {
  const zeros = new Uint8Array(1 << 20)
  const reader = new TarReader(
    (async function* () {
      for (;;) yield zeros
    })(),
  )
  await assert.rejects(async () => await reader.next(), { name: 'TarError', code: 'LIMIT' })
  await reader.close()
})
