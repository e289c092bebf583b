import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { mountTmpfs, unmount } from '../../kernel/index.ts'
import { escapePath } from '../../rafs/index.ts'
import { type TarEntry, TarReader } from '../../tar/index.ts'
import { noShared, type Ran, sharedPath } from '../testing.ts'
import { recordingFolder, run, runAll, TOOL } from './testing.ts'

/** One line of an expected tree, and the same of a tar. */
interface Line {
  readonly path: string
  readonly type: string
  readonly mode?: string
  readonly uid?: number
  readonly gid?: number
  readonly mtime?: number
  readonly mtime_nsec?: number
  readonly size?: number
  readonly rdev?: string
  readonly target?: string
  readonly sha256?: string
  readonly hardlink?: string
  readonly xattrs?: Record<string, string>
}

interface Recorded {
  readonly id: string
  readonly bootstrap?: string
  readonly inline_blob?: string
  readonly tree?: string
  readonly exit: number
  readonly verified?: Record<string, unknown>
}

/** Images that cannot be unpacked, and what is said of them. */
const UNREADABLE: ReadonlyMap<string, RegExp> = new Map([
  // The original wrote them wrong: its own reads of them fail, or show other bytes.
  ['v5-upper-tar-parent', /a file wants bytes 0 to 70000 of chunk 10 of blob [0-9a-f]{64}, .*; the chunk has 100,/],
  ['v6-upper-tar-parent', /a file wants bytes 0 to 70000 of chunk 10 of blob [0-9a-f]{64}, .*; the chunk has 100,/],
  ['v5-tar-zstd-encrypt', /it is encrypted, and the image has no key for it/],
  ['v6-optimize', /its 5 chunks do not fit chunk infos of 120 bytes/],
  ['v6-optimize-batch', /the compression context of blob [0-9a-f]{64} does not fit the bootstrap/],
  // It made no image at all.
  ['v5-compact', /is empty/],
  ['v6-compact', /is empty/],
])

/** Paths that the original put into the wrong place, or spoiled, when it built the image. */
const SPOILED: ReadonlyMap<string, RegExp> = new Map([
  ['v5-src-implicit', /^\/(b|m)(\/|$)/],
  ['v6-src-implicit', /^\/(b|m)(\/|$)/],
  ['v6-tarfs-lower', /^\/links\/long$/],
  ['v6-merge-tarfs', /^\/links\/long$/],
])

describe('images of the original, unpacked', { skip: noShared }, async () => {
  if (noShared !== false) return
  const {
    images,
    unpack,
    derived_blobs: derived,
  } = JSON.parse(readFileSync(sharedPath('manifest.json'), 'utf8')) as {
    images: Recorded[]
    derived_blobs: Record<string, Derived>
    unpack: Array<{ id: string; source: string; sha256?: string }>
  }
  const folder = recordingFolder()
  fillPool(join(folder, 'pool'), derived)
  after(() => rmSync(folder, { recursive: true, force: true }))
  const wanted = images
    .map(({ id }) => JSON.parse(readFileSync(sharedPath('images', id, 'image.json'), 'utf8')) as Recorded)
    .filter(({ tree, bootstrap, exit }) => exit === 0 && tree !== undefined && bootstrap !== undefined)
  const ran = new Map<string, Ran>()
  const commands = wanted.map(({ id, bootstrap = '', inline_blob: image = bootstrap }) => [
    'unpack',
    '-D',
    'pool',
    '--output',
    `work/o/${id}.tar`,
    image,
  ])
  for (const [i, result] of (await runAll(commands, folder)).entries()) ran.set(wanted[i]?.id ?? '', result)

  for (const { id, tree = '' } of wanted) {
    const unreadable = UNREADABLE.get(id)
    if (unreadable !== undefined) {
      test(`unpack ${id}: refused, nothing is left`, () => {
        assert.equal(ran.get(id)?.exit, 1)
        assert.match(ran.get(id)?.stderr ?? '', unreadable)
        assert.ok(!readdirSync(join(folder, 'work/o')).some((name) => name.includes(`${id}.tar`)))
      })
      continue
    }
    test(`unpack ${id}: every path, attribute and byte`, async () => {
      const result = ran.get(id)
      assert.equal(result?.exit, 0, result?.stderr)
      const isSpoiled = ({ path }: Line): boolean => SPOILED.get(id)?.test(path) === true
      const lines = readFileSync(sharedPath(tree), 'utf8').trim().split('\n')
      const expected = lines
        .map((line) => JSON.parse(line) as Line)
        .filter((line) => line.type !== 'socket' && line.path !== '/' && !isSpoiled(line))
      const found = (await linesOf(join(folder, `work/o/${id}.tar`))).filter((line) => !isSpoiled(line))
      assert.deepEqual(found, expected.map(comparable))
    })
  }
  for (const { id, source, sha256 } of unpack) {
    const image = source.split('/')[1] ?? ''
    if (sha256 === undefined) continue
    test(`${id}: the original's bytes`, () => {
      const found = createHash('sha256')
        .update(readFileSync(join(folder, `work/o/${image}.tar`)))
        .digest('hex')
      assert.equal(found, sha256)
    })
  }
})

/** How to have a blob that is not stored twice. */
type Derived = { readonly gunzip: string } | { readonly copy: string }

/** All blobs in one folder, those that images refer to among them. */
function fillPool(pool: string, derived: Readonly<Record<string, Derived>>): void {
  mkdirSync(pool)
  for (const name of readdirSync(sharedPath('blobs'))) symlinkSync(sharedPath('blobs', name), join(pool, name))
  for (const [id, from] of Object.entries(derived)) {
    if ('copy' in from) symlinkSync(sharedPath(from.copy), join(pool, id))
    else writeFileSync(join(pool, id), gunzipSync(readFileSync(sharedPath(from.gunzip))))
  }
}

/** What an archive says; directories' sizes and link counts are not in it. */
function comparable(line: Line): Line {
  const { nlink: _nlink, size, ...rest } = line as Line & { nlink?: number }
  return { ...rest, ...(line.type === 'file' ? { size } : {}) }
}

async function linesOf(path: string): Promise<Line[]> {
  const tar = new TarReader(createReadStream(path))
  const lines: Line[] = []
  const firsts = new Map<string, Line>()
  for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
    const at = `/${escapePath(entry.path)}`
    if (entry.type === 'hardlink') {
      const link = escapePath(entry.link)
      const first = firsts.get(link)
      assert.ok(first, `${at} is a link to ${link}, which did not come before it`)
      const linked = { ...first, hardlink: link }
      lines[lines.indexOf(first)] = linked
      firsts.set(link, linked)
      lines.push({ ...linked, path: at })
      continue
    }
    const content = Buffer.alloc(entry.size)
    await tar.read(content)
    const line = lineOf(at, entry, content)
    firsts.set(at, line)
    lines.push(line)
  }
  return lines.sort((a, b) => (bytesOf(a.path) < bytesOf(b.path) ? -1 : 1))
}

/** Paths are listed in the order of their bytes, before they were escaped. */
function bytesOf(path: string): string {
  return path.replaceAll(/%([0-9A-F]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}

const TYPES: Readonly<Record<string, string>> = { directory: 'dir' }

function lineOf(path: string, entry: TarEntry, content: Buffer): Line {
  const { mode, uid, gid, mtimeSeconds, mtimeNanoseconds, devMajor, devMinor } = entry
  const isDevice = entry.type === 'char' || entry.type === 'block'
  const xattrs = entry.xattrs.map(
    ({ name, value }) => [escapePath(name), Buffer.from(value).toString('base64')] as const,
  )
  return {
    path,
    type: TYPES[entry.type] ?? entry.type,
    mode: mode.toString(8).padStart(4, '0'),
    uid,
    gid,
    mtime: mtimeSeconds,
    mtime_nsec: mtimeNanoseconds,
    ...(entry.type === 'file' ? { size: entry.size, sha256: createHash('sha256').update(content).digest('hex') } : {}),
    ...(isDevice ? { rdev: `${devMajor}:${devMinor}` } : {}),
    ...(entry.type === 'symlink' ? { target: escapePath(entry.link) } : {}),
    ...(xattrs.length > 0 ? { xattrs: Object.fromEntries(xattrs) } : {}),
  }
}

describe('unpack on bad days', () => {
  let folder = ''
  let blob = ''
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'unpack-'))
    mkdirSync(join(folder, 'tree/sub'), { recursive: true })
    mkdirSync(join(folder, 'blobs'))
    writeFileSync(join(folder, 'tree/sub/text'), 'some text\n'.repeat(20_000))
    writeFileSync(join(folder, 'tree/name with = and %'), 'x')
    execFileSync('truncate', ['-s', '20M', join(folder, 'tree/large')])
    writeFileSync(join(folder, 'empty.json'), '{}')
    const built = run(['create', '-l', 'warn', '-D', 'blobs', '-B', 'image.boot', 'tree'], folder)
    assert.equal(built.exit, 0, built.stderr)
    blob = readdirSync(join(folder, 'blobs'))[0] ?? ''
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  const temporaries = (): string[] => readdirSync(folder).filter((name) => name.includes('.tmp'))

  test('a tar on stdout, in a file and in a FIFO are the same', async () => {
    const toFile = run(['unpack', '-D', 'blobs', '--output', 'file.tar', 'image.boot'], folder)
    assert.equal(toFile.exit, 0, toFile.stderr)
    const script =
      '"$0" --disable-warning=ExperimentalWarning "$1" unpack -b "blobs/$2" --output - image.boot > stdout.tar'
    execFileSync('sh', ['-c', script, process.execPath, TOOL, blob], { cwd: folder })
    execFileSync('mkfifo', [join(folder, 'fifo.tar')])
    const reader = spawn('sh', ['-c', 'cat fifo.tar > copy.tar'], { cwd: folder })
    const toFifo = spawn(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        TOOL,
        'unpack',
        '-D',
        'blobs',
        '-B',
        'image.boot',
        '--output',
        'fifo.tar',
      ],
      { cwd: folder },
    )
    const [[exit]] = await Promise.all([once(toFifo, 'exit'), once(reader, 'exit')])
    assert.equal(exit, 0)
    const wanted = readFileSync(join(folder, 'file.tar'))
    for (const name of ['stdout.tar', 'copy.tar']) assert.ok(readFileSync(join(folder, name)).equals(wanted), name)
    const listed = spawnSync('tar', ['-df', join(folder, 'file.tar')], { cwd: join(folder, 'tree'), encoding: 'utf8' })
    assert.equal(listed.stdout + listed.stderr, '')
    assert.ok(statSync(join(folder, 'fifo.tar')).isFIFO())
  })

  for (const [what, args, message] of [
    ['a missing blob', ['-D', 'nowhere'], /cannot open blob [0-9a-f]{64}: there is no nowhere\//],
    ['a missing blob file', ['-b', 'nothing'], /cannot open blob [0-9a-f]{64}: there is no nothing/],
    ['a damaged chunk', ['-b', 'damaged'], /chunk \d+ of blob [0-9a-f]{64}/],
    ['a blob that was cut', ['-b', 'cut'], /cannot read [^]*of blob [0-9a-f]{64}/],
  ] as const) {
    test(`${what} is named, and what lay there stays`, () => {
      const bytes = readFileSync(join(folder, 'blobs', blob))
      writeFileSync(join(folder, 'cut'), bytes.subarray(0, 20))
      bytes.fill(0x55, 16, 40)
      writeFileSync(join(folder, 'damaged'), bytes)
      writeFileSync(join(folder, 'kept.tar'), 'precious')
      const { exit, stdout, stderr } = run(['unpack', ...args, '--output', 'kept.tar', 'image.boot'], folder)
      assert.deepEqual([exit, stdout], [1, ''])
      assert.match(stderr, /^Error: fail to unpack\n\nCaused by:\n/)
      assert.match(stderr, message)
      assert.equal(readFileSync(join(folder, 'kept.tar'), 'utf8'), 'precious')
      assert.deepEqual(temporaries(), [])
    })
  }

  test('a bootstrap that is none, and one that was cut', () => {
    const none = run(['unpack', '-D', 'blobs', '--output', 'no.tar', 'tree/sub/text'], folder)
    assert.deepEqual([none.exit, /invalid RAFS superblock/.test(none.stderr)], [1, true], none.stderr)
    writeFileSync(join(folder, 'cut.boot'), readFileSync(join(folder, 'image.boot')))
    truncateSync(join(folder, 'cut.boot'), 4096)
    assert.equal(run(['unpack', '-D', 'blobs', '--output', 'no.tar', 'cut.boot'], folder).exit, 1)
    assert.ok(!existsSync(join(folder, 'no.tar')))
  })

  for (const [args, message] of [
    [['--backend-type', 'oss', '--backend-config', '{}'], /oss/],
    [['--backend-type', 'registry', '--backend-config', 'nonsense'], /failed to parse backend configuration/],
    [['--backend-type', 'registry', '--backend-config-file', 'nothing'], /fail to read backend config file "nothing"/],
    [['--backend-type', 'registry', '--backend-config', '{}'], /--backend-config: "backend.registry.host" is missing/],
    [['--backend-type', 'registry', '--backend-config-file', 'empty.json'], /empty.json: "backend.registry.host" is/],
    [['--backend-type', 'localfs', '--backend-config', '{}'], /Use --blob-dir to specify localfs backend/],
  ] as const) {
    test(`unpack ${args.join(' ')} is refused`, () => {
      const { exit, stderr } = run(['unpack', ...args, '--output', 'no.tar', 'image.boot'], folder)
      assert.equal(exit, 1)
      assert.match(stderr, message)
      assert.ok(!existsSync(join(folder, 'no.tar')))
    })
  }

  test('a full disk is told, and nothing is left on it', {
    skip: process.getuid?.() !== 0 && 'mounting a small disk needs root',
  }, async () => {
    const small = join(folder, 'small')
    mkdirSync(small)
    await mountTmpfs(small, 1 << 20)
    try {
      const { exit, stderr } = run(['unpack', '-D', 'blobs', '--output', 'small/image.tar', 'image.boot'], folder)
      assert.equal(exit, 1)
      assert.match(stderr, /cannot write small\/image.tar: .*no space left on device/)
      assert.deepEqual(readdirSync(small), [])
    } finally {
      await unmount(small)
    }
  })

  test('Ctrl-C leaves nothing', async () => {
    execFileSync('mkfifo', [join(folder, 'slow.fifo')])
    const reader = spawn('sh', ['-c', 'exec 3< slow.fifo; head -c 1000 <&3 > started; exec sleep 60 3<&3'], {
      cwd: folder,
    })
    const tool = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', TOOL, 'unpack', '-D', 'blobs', '--output', 'slow.fifo', 'image.boot'],
      { cwd: folder },
    )
    const exited = once(tool, 'exit')
    try {
      for (let tries = 0; !existsSync(join(folder, 'started')) && tries < 6000; tries += 1)
        await new Promise((resolve) => setTimeout(resolve, 10))
      tool.kill('SIGINT')
      assert.deepEqual(await exited, [130, null])
      assert.deepEqual(temporaries(), [])
    } finally {
      reader.kill()
    }
  })
})

test('a blob is read through a proxy on a socket, as converters serve it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'unpack-proxy-'))
  const server = createServer()
  try {
    writeFileSync(join(folder, 'file'), Buffer.alloc(200_000, 'some text\n'))
    execFileSync('tar', ['-cf', 'layer.tar', 'file'], { cwd: folder })
    const built = run(['create', '-t', 'tar-rafs', '-B', 'boot', '-b', 'blob', 'layer.tar'], folder)
    assert.equal(built.exit, 0, built.stderr)
    const blob = readFileSync(join(folder, 'blob'))
    server.on('request', (request, response) => {
      const [from = 0, last] = (request.headers.range ?? 'bytes=0').slice('bytes='.length).split('-').map(Number)
      if (request.method === 'HEAD') response.setHeader('Content-Length', blob.length)
      else response.write(blob.subarray(from, last === undefined ? undefined : last + 1))
      response.end()
    })
    server.listen(join(folder, 'proxy.sock'))
    await once(server, 'listening')
    const config = JSON.stringify({ addr: join(folder, 'proxy.sock') })
    const flags = ['--backend-type', 'http-proxy', '--backend-config', config, '--output', 'out.tar']
    const tool = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', TOOL, 'unpack', '-B', 'boot', ...flags],
      {
        cwd: folder,
        stdio: ['ignore', 'inherit', 'inherit'],
      },
    )
    assert.deepEqual(await once(tool, 'exit'), [0, null])
    execFileSync('tar', ['-xf', 'out.tar', '--to-command', 'cmp - file'], { cwd: folder })
  } finally {
    server.closeAllConnections()
    server.close()
    rmSync(folder, { recursive: true })
  }
})
