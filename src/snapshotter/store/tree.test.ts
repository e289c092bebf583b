import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { mountTmpfs, unmount } from '../../kernel/index.ts'
import { measureUsage, removeTree } from './index.ts'

const { signal } = new AbortController()
const roots: string[] = []
const whyNoMounts = process.getuid?.() === 0 ? false : 'not root'

afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true, force: true })
})

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'tree-'))
  roots.push(path)
  return path
}

/** So many directories in each other, whose path is longer than any path may be. */
function deep(top: string, levels: number): void {
  const script = `set -e; cd "$1"; i=0; while [ $i -lt ${levels} ]; do mkdir ${'d'.repeat(200)}; cd -P ${'d'.repeat(200)}; i=$((i+1)); done; echo end > file`
  execFileSync('sh', ['-c', script, 'sh', top])
}

function sum(...paths: readonly string[]): { bytes: number; inodes: number } {
  const bytes = paths.reduce((total, path) => total + lstatSync(path).blocks * 512, 0)
  return { bytes, inodes: paths.length }
}

test('usage is blocks and inodes, the directory itself among them, a file of several names once', async () => {
  const top = folder()
  writeFileSync(join(top, 'a'), Buffer.alloc(100_000, 1))
  linkSync(join(top, 'a'), join(top, 'b'))
  mkdirSync(join(top, 'd'))
  linkSync(join(top, 'a'), join(top, 'd/c'))
  symlinkSync('/', join(top, 'd/link'))
  writeFileSync(Buffer.concat([Buffer.from(`${top}/d/`), Buffer.from([0xff, 0xfe])]), 'x'.repeat(5000))
  const odd = sum(top, join(top, 'a'), join(top, 'd'), join(top, 'd/link'))
  const used = await measureUsage(top, signal)
  assert.deepEqual(used, { bytes: odd.bytes + 8192, inodes: odd.inodes + 1 })
})

test('usage of a tree that is deeper than any path', async () => {
  const top = folder()
  deep(top, 60)
  const { inodes } = await measureUsage(top, signal)
  assert.equal(inodes, 62)
  await removeTree(top, signal)
  assert.ok(!existsSync(top))
})

test('usage of what is not there has a code', async () => {
  await assert.rejects(measureUsage(join(folder(), 'none'), signal), { code: 'NOT_FOUND' })
})

test('measuring and removing end when they are told to, and the rest stays', async () => {
  const top = folder()
  for (let i = 0; i < 200; i += 1) writeFileSync(join(top, String(i)), '')
  const reason = new Error('enough')
  await assert.rejects(measureUsage(top, AbortSignal.abort(reason)), reason)
  await assert.rejects(removeTree(top, AbortSignal.abort(reason)), reason)
  assert.equal(readdirSync(top).length, 200)
})

test('the event loop runs on while a large tree is measured and removed', async () => {
  const top = folder()
  for (let i = 0; i < 20; i += 1) {
    mkdirSync(join(top, String(i)))
    for (let k = 0; k < 200; k += 1) writeFileSync(join(top, String(i), String(k)), '')
  }
  let turns = 0
  const timer = setInterval(() => (turns += 1), 0)
  const { inodes } = await measureUsage(top, signal)
  await removeTree(top, signal)
  clearInterval(timer)
  assert.equal(inodes, 4021)
  assert.ok(turns > 20, `${turns} turns`)
  assert.ok(!existsSync(top))
})

test('a tree goes with everything a container can make in it', async () => {
  const top = folder()
  const fs = join(top, 'fs')
  mkdirSync(join(fs, '.leaving-1/.leaving-2'), { recursive: true })
  writeFileSync(join(top, '.leaving-1'), 'in the way')
  mkdirSync(join(top, '.leaving-2'))
  writeFileSync(join(top, '.leaving-2/x'), 'in the way')
  mkdirSync(join(fs, 'closed'), { mode: 0 })
  const outside = folder()
  writeFileSync(join(outside, 'kept'), '')
  symlinkSync(outside, join(fs, 'link'))
  symlinkSync('nowhere', join(fs, 'broken'))
  mkdirSync(Buffer.concat([Buffer.from(`${fs}/`), Buffer.from([0xff])]))
  execFileSync('mkfifo', [join(fs, 'pipe')])
  for (let i = 0; i < 300; i += 1) writeFileSync(join(fs, `file ${i}`), '')
  await removeTree(top, signal)
  assert.ok(!existsSync(top))
  assert.deepEqual(readdirSync(outside), ['kept'])
  await removeTree(top, signal)
})

test('immutable files go too', {
  skip: whyNoMounts || (spawnSync('chattr', ['-V']).error === undefined ? false : 'no chattr'),
}, async (t) => {
  const top = folder()
  mkdirSync(join(top, 'fs/d'), { recursive: true })
  writeFileSync(join(top, 'fs/d/f'), '')
  if (spawnSync('chattr', ['+i', join(top, 'fs/d/f'), join(top, 'fs/d')]).status !== 0)
    return t.skip('no such attributes here')
  await removeTree(top, signal)
  assert.ok(!existsSync(top))
  return undefined
})

test('where something is mounted, nothing is removed', { skip: whyNoMounts }, async () => {
  const top = folder()
  mkdirSync(join(top, 'mnt'))
  writeFileSync(join(top, 'file'), '')
  await mountTmpfs(join(top, 'mnt'), 2 ** 20)
  try {
    writeFileSync(join(top, 'mnt/somebody'), '')
    const expected = { code: 'FAILED_PRECONDITION', message: new RegExp(`${top}/mnt is mounted \\(tmpfs\\)`) }
    await assert.rejects(removeTree(top, signal), expected)
    assert.deepEqual(readdirSync(join(top, 'mnt')), ['somebody'])
    assert.ok(existsSync(join(top, 'file')))
    const { inodes } = await measureUsage(top, signal)
    assert.equal(inodes, 2)
  } finally {
    await unmount(join(top, 'mnt'))
  }
  await removeTree(top, signal)
})
