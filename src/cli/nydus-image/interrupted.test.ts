/** Whatever ends a command early: under a final name there is the whole output, or what was there before, or nothing. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { mountTmpfs, unmount } from '../../kernel/index.ts'
import { type Ran } from '../testing.ts'
import { runAll, TOOL } from './testing.ts'

const isRoot = process.getuid?.() === 0
let folder = ''

/** More of them than a bootstrap of 64 KiB can hold, and data that no compressor makes smaller. */
function makeTree(at: string, seed: number): void {
  mkdirSync(at)
  for (let index = 0; index < 800; index += 1) writeFileSync(join(at, `a-file-with-a-longer-name-${index}`), `${index}`)
  const noise = new Uint32Array(1 << 18)
  for (let index = 0, state = seed; index < noise.length; index += 1) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    noise[index] = state
  }
  writeFileSync(join(at, 'noise'), noise)
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'interrupted-'))
  makeTree(join(folder, 'tree'), 2_463_534_242)
  makeTree(join(folder, 'other'), 88_675_123)
  mkdirSync(join(folder, 'blobs'))
  const builds = ['tree', 'other'].map((tree) => ['create', '-D', 'blobs', '-B', `${tree}.boot`, tree])
  const built = await runAll(builds, folder)
  assert.deepEqual(
    built.map(({ exit }) => exit),
    [0, 0],
  )
  // In the same hook: another one would begin before this one has ended.
  mkdirSync(join(folder, 'out'))
  for (const { exit, stderr } of await runCommands()) assert.equal(exit, 0, stderr)
  assert.deepEqual(readdirSync(join(folder, 'out')).sort(), ALL_NAMES)
  whole = contentsOf(join(folder, 'out'))
})

after(() => rmSync(folder, { recursive: true, force: true }))

/** Commands, and what they write: all of it is there under these names, or none. */
const COMMANDS: ReadonlyArray<readonly [string, readonly string[], readonly string[]]> = [
  ['create of v5', ['create', '-v', '5', '-b', 'out/5.blob', '-B', 'out/5.boot', 'tree'], ['5.blob', '5.boot']],
  ['create of v6', ['create', '-b', 'out/6.blob', '-B', 'out/6.boot', 'tree'], ['6.blob', '6.boot']],
  ['create with the bootstrap inside', ['create', '--blob-inline-meta', '-b', 'out/inline', 'tree'], ['inline']],
  ['merge', ['merge', '-B', 'out/merged', 'tree.boot', 'other.boot'], ['merged']],
  ['unpack', ['unpack', '-D', 'blobs', '--output', 'out/tar', 'tree.boot'], ['tar']],
  ['export', ['export', '--block', '-B', 'tree.boot', '-D', 'blobs', '-O', 'out/disk'], ['disk']],
]
/** The rest of the way is one for all of them. */
const ENDINGS: ReadonlyMap<string, readonly [NodeJS.Signals, number]> = new Map([
  ['create of v5', ['SIGINT', 130]],
  ['unpack', ['SIGTERM', 143]],
  ['merge', ['SIGTERM', 143]],
  ['export', ['SIGINT', 130]],
])
const ALL_NAMES = COMMANDS.flatMap(([, , names]) => names).sort()
let whole: ReadonlyMap<string, Buffer> = new Map()

function start(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', TOOL, ...args], {
    cwd: folder,
    stdio: 'ignore',
  })
}

/** All commands in one process. */
async function runCommands(): Promise<Ran[]> {
  return await runAll(
    COMMANDS.map(([, args]) => args),
    folder,
  )
}

function contentsOf(out: string): Map<string, Buffer> {
  return new Map(ALL_NAMES.map((name) => [name, readFileSync(join(out, name))]))
}

interface Interrupted {
  readonly exit: number | null
  readonly files: string[]
  /** The older output is there. */
  readonly isOlder: boolean
}

/** Starts a command over an older output and ends it when its temporary file is there, or all is over already. */
async function interrupt(
  args: readonly string[],
  names: readonly string[],
  signal: NodeJS.Signals,
): Promise<Interrupted> {
  const out = join(folder, 'out')
  rmSync(out, { recursive: true })
  mkdirSync(out)
  for (const name of names) writeFileSync(join(out, name), 'older')
  const tool = start(args)
  const exited = once(tool, 'exit')
  while (readdirSync(out).length === names.length && tool.exitCode === null)
    await new Promise((resolve) => setTimeout(resolve, 2))
  tool.kill(signal)
  const [exit] = (await exited) as [number | null]
  let isOlder = false
  for (const name of names) {
    const found = readFileSync(join(out, name))
    if (found.toString() === 'older') isOlder = true
    else assert.ok(found.equals(whole.get(name) ?? Buffer.alloc(0)), name)
  }
  return { exit, files: readdirSync(out), isOlder }
}

for (const [what, args, names] of COMMANDS) {
  test(`kill -9 in ${what} leaves the whole output or the older one`, async () => {
    await interrupt(args, names, 'SIGKILL')
  })
  const ending = ENDINGS.get(what)
  if (ending === undefined) continue
  const [signal, code] = ending
  test(`${signal} in ${what} leaves that too, nothing beside it, and the exit code ${code}`, async () => {
    const { exit, files, isOlder } = await interrupt(args, names, signal)
    assert.deepEqual(files, names)
    // When all is written the signal may come too late.
    assert.ok(exit === code || (exit === 0 && !isOlder), `exit code ${exit}`)
  })
}

test('commands that are run again after they were killed end well', async () => {
  const out = join(folder, 'out')
  writeFileSync(join(out, '.6.blob.0123456789ab.tmp'), 'half a blob')
  for (const { exit, stderr } of await runCommands()) assert.equal(exit, 0, stderr)
  assert.deepEqual(contentsOf(out), whole)
  assert.equal(readFileSync(join(out, '.6.blob.0123456789ab.tmp'), 'utf8'), 'half a blob')
})

test('a full disk keeps the older outputs, and nothing is left beside them', {
  skip: !isRoot && 'mounting a small disk needs root',
}, async () => {
  const out = join(folder, 'out')
  await mountTmpfs(out, 1 << 16)
  try {
    for (const name of ALL_NAMES) writeFileSync(join(out, name), 'older')
    for (const { exit, stderr } of await runCommands()) {
      assert.equal(exit, 1)
      assert.match(stderr, /no space left on device/)
    }
    assert.deepEqual(readdirSync(out).sort(), ALL_NAMES)
    for (const [name, bytes] of contentsOf(out)) assert.equal(bytes.toString(), 'older', name)
  } finally {
    await unmount(out)
  }
})

test('a disk that has room for the blob but not for its bootstrap gets neither', {
  skip: !isRoot && 'mounting a small disk needs root',
}, async () => {
  const [small, tree] = [join(folder, 'small'), join(folder, 'names')]
  for (const path of [small, tree]) mkdirSync(path)
  for (let index = 0; index < 800; index += 1)
    writeFileSync(join(tree, `an-empty-file-with-a-longer-name-${index}`), '')
  writeFileSync(join(tree, 'one-with-content'), 'content')
  await mountTmpfs(small, 1 << 16)
  try {
    for (const version of ['5', '6']) {
      const args = ['create', '-v', version, '-D', 'small', '-B', 'small/boot', 'names']
      const [failed] = await runAll([args], folder)
      assert.equal(failed?.exit, 1)
      assert.match(failed?.stderr ?? '', /cannot write small\/boot: .*no space left on device/)
      assert.deepEqual(readdirSync(small), [])
    }
  } finally {
    await unmount(small)
  }
})

for (const version of ['5', '6'])
  test(`builds of RAFS v${version} into one folder of blobs at once do not hinder each other`, async () => {
    const [alone, shared] = ['alone', 'shared'].map((name) => join(folder, `${name}-${version}`)) as [string, string]
    for (const path of [alone, shared]) mkdirSync(path)
    const build = (blobs: string, tree: string, name: string): string[] => {
      return ['create', '-v', version, '-D', blobs, '-B', `${blobs}.${name}`, tree]
    }
    await runAll([build(alone, 'tree', 'tree'), build(alone, 'other', 'other')], folder)
    const jobs = ['tree', 'other', 'tree'].map(async (tree, index) => {
      const [code] = (await once(start(build(shared, tree, String(index))), 'exit')) as [number]
      assert.equal(code, 0)
      assert.ok(readFileSync(`${shared}.${index}`).equals(readFileSync(`${alone}.${tree}`)))
    })
    await Promise.all(jobs)
    assert.deepEqual(readdirSync(shared), readdirSync(alone))
    for (const id of readdirSync(alone))
      assert.ok(readFileSync(join(shared, id)).equals(readFileSync(join(alone, id))), id)
  })
