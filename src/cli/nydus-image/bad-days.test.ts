import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { mountTmpfs, unmount } from '../../kernel/index.ts'
import { run, runAll, TOOL } from './testing.ts'

const isRoot = process.getuid?.() === 0
let folder = ''
let tar = ''

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'bad-days-'))
  mkdirSync(join(folder, 'tree'))
  for (let i = 0; i < 4; i += 1)
    writeFileSync(join(folder, 'tree', `file-${i}`), Buffer.alloc(1 << 17, `${i} lines of text\n`))
  writeFileSync(join(folder, 'tree/noise'), noise(1 << 19))
  tar = join(folder, 'tree.tar')
  execFileSync('tar', ['-cf', tar, '-C', join(folder, 'tree'), '.'])
  const built = run(['create', '-t', 'tar-rafs', '-B', 'wanted.boot', '-b', 'wanted.blob', 'tree.tar'], folder)
  assert.equal(built.exit, 0, built.stderr)
})

after(() => rmSync(folder, { recursive: true, force: true }))

/** Bytes that no compressor makes smaller, the same every time. */
function noise(size: number): Uint8Array {
  const bytes = new Uint32Array(size / 4)
  for (let i = 0, x = 2_463_534_242; i < bytes.length; i += 1) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    bytes[i] = x
  }
  return new Uint8Array(bytes.buffer)
}

function start(args: readonly string[], stdin: 'ignore' | 'pipe' = 'ignore'): ChildProcess {
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', TOOL, ...args], {
    cwd: folder,
    stdio: [stdin, 'pipe', 'pipe'],
  })
}

function assertWanted(blob: string, bootstrap: string): void {
  assert.ok(readFileSync(join(folder, blob)).equals(readFileSync(join(folder, 'wanted.blob'))))
  assert.ok(readFileSync(join(folder, bootstrap)).equals(readFileSync(join(folder, 'wanted.boot'))))
}

for (const source of ['-', '/dev/stdin']) {
  test(`a tar from ${source} gives the same bytes as from a file`, () => {
    const built = run(['create', '-t', 'tar-rafs', '-B', 'in.boot', '-b', 'in.blob', source], folder, readFileSync(tar))
    assert.equal(built.exit, 0, built.stderr)
    assertWanted('in.blob', 'in.boot')
  })
}

test('FIFOs in and out give the same bytes', async () => {
  execFileSync('mkfifo', [join(folder, 'in.fifo'), join(folder, 'out.fifo')])
  const tool = start(['create', '-t', 'tar-rafs', '-B', 'fifo.boot', '-b', 'out.fifo', 'in.fifo'])
  const writer = spawn('sh', ['-c', 'cat tree.tar > in.fifo'], { cwd: folder })
  const reader = spawn('sh', ['-c', 'cat out.fifo > fifo.blob'], { cwd: folder })
  const [[exit]] = await Promise.all([once(tool, 'exit'), once(writer, 'exit'), once(reader, 'exit')])
  assert.equal(exit, 0)
  assertWanted('fifo.blob', 'fifo.boot')
})

test('a blob whose reader goes away is told in one line, and no bootstrap appears', async () => {
  execFileSync('mkfifo', [join(folder, 'gone.fifo')])
  const tool = start(['create', '-t', 'tar-rafs', '-B', 'gone.boot', '-b', 'gone.fifo', 'tree.tar'])
  const reader = spawn('sh', ['-c', 'head -c 1000 gone.fifo > /dev/null'], { cwd: folder })
  let stderr = ''
  tool.stderr?.on('data', (text: Buffer) => (stderr += text.toString()))
  const [[exit]] = await Promise.all([once(tool, 'exit'), once(reader, 'exit')])
  assert.equal(exit, 1)
  assert.match(stderr, /^Error: cannot write gone\.fifo: .*\n$/)
  assert.ok(!readdirSync(folder).some((name) => name.includes('gone.boot')))
})

for (const [what, args, stdin] of [
  ['a FIFO that nobody writes to', ['-b', 'stuck/blob', '-B', 'stuck/boot', 'silent.fifo'], 'ignore'],
  ['stdin that stays silent', ['-b', 'stuck/blob', '-B', 'stuck/boot', '-'], 'pipe'],
  [
    'prefetch patterns that do not come',
    ['-b', 'stuck/blob', '-B', 'stuck/boot', '--prefetch-policy', 'fs', 'tree.tar'],
    'pipe',
  ],
] as const) {
  test(`Ctrl-C ends a build that waits for ${what}, and leaves nothing`, async () => {
    rmSync(join(folder, 'stuck'), { recursive: true, force: true })
    rmSync(join(folder, 'silent.fifo'), { force: true })
    mkdirSync(join(folder, 'stuck'))
    execFileSync('mkfifo', [join(folder, 'silent.fifo')])
    const tool = start(['create', '-t', 'tar-rafs', ...args], stdin)
    const exited = once(tool, 'exit')
    await waitsForInput(tool)
    tool.kill('SIGINT')
    assert.deepEqual(await exited, [130, null])
    assert.deepEqual(readdirSync(join(folder, 'stuck')), [])
  })
}

/** Until the tool has made its temporary file, or has read more from stdin than any buffer holds: then it listens to signals too. */
async function waitsForInput(tool: ChildProcess): Promise<void> {
  if (tool.stdin !== null) {
    await new Promise((resolve) => tool.stdin?.write(Buffer.alloc(4 << 20), resolve))
    return
  }
  for (let tries = 0; tries < 6000; tries += 1) {
    if (readdirSync(join(folder, 'stuck')).length > 0) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  assert.fail('the tool did not come up')
}

test('a full disk is told in one line, and nothing is left on it', {
  skip: !isRoot && 'mounting a small disk needs root',
}, async () => {
  const small = join(folder, 'small')
  mkdirSync(small)
  await mountTmpfs(small, 1 << 18)
  try {
    const built = run(['create', '-D', 'small', '-B', 'full.boot', 'tree'], folder)
    assert.equal(built.exit, 1)
    assert.match(built.stderr, /^Error: cannot write small\/blob: .*no space left on device.*\n$/)
    assert.deepEqual(readdirSync(small), [])
  } finally {
    await unmount(small)
  }
})

test('an output that cannot be written is told before the work', () => {
  const built = run(['create', '-b', 'nowhere/blob', '-B', 'boot', 'tree'], folder)
  assert.equal(built.exit, 1)
  assert.match(built.stderr, /^Error: cannot write nowhere\/blob: ENOENT.*\n$/)
})

test('results that cannot be written fail the command; a log that cannot does not', () => {
  const full = openSync('/dev/full', 'w')
  try {
    const script = (redirect: string): number => {
      const words = `"${process.execPath}" --disable-warning=ExperimentalWarning "${TOOL}" check wanted.boot ${redirect}; echo $?`
      return Number(
        execFileSync('sh', ['-c', words], { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
          .trim()
          .split('\n')
          .at(-1),
      )
    }
    assert.equal(script('> /dev/full'), 1)
    assert.equal(script('2> /dev/full'), 0)
  } finally {
    closeSync(full)
  }
})

test('a reader that has seen enough ends a listing quietly', () => {
  // The listing is longer than a pipe holds.
  const image = join(import.meta.dirname, '../../rafs/testdata/v6-merge3.bootstrap')
  const script = `{ "$0" --disable-warning=ExperimentalWarning "$1" check -v "$2" 2> told; echo $? > code; } | head -c 10`
  execFileSync('sh', ['-c', script, process.execPath, TOOL, image], { cwd: folder })
  assert.deepEqual(
    [readFileSync(join(folder, 'told'), 'utf8'), readFileSync(join(folder, 'code'), 'utf8')],
    ['', '141\n'],
  )
})

test('damaged blobs are found when it is said where they are', async () => {
  mkdirSync(join(folder, 'blobs'))
  const before = [
    ['create', '-l', 'error', '-D', 'blobs', '-B', 'data.boot', 'tree'],
    ['check', '-D', 'blobs', 'data.boot'],
  ]
  assert.deepEqual(
    (await runAll(before, folder)).map(({ exit }) => exit),
    [0, 0],
  )
  const blob = join(folder, 'blobs', readdirSync(join(folder, 'blobs'))[0] ?? '')
  const bytes = readFileSync(blob)
  bytes[20] = (bytes[20] ?? 0) ^ 1
  writeFileSync(blob, bytes)
  // With -B the metadata alone is meant, as other programs expect.
  const [damaged, metadata] = await runAll(
    [
      ['check', '-D', 'blobs', 'data.boot'],
      ['check', '-D', 'blobs', '-B', 'data.boot'],
    ],
    folder,
  )
  assert.deepEqual([damaged?.exit, metadata?.exit], [1, 0])
  assert.match(damaged?.stderr ?? '', /ERROR blob [0-9a-f]{64}: chunk \d+ \(bytes \d+ to \d+\)/)
})
