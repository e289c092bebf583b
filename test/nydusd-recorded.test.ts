/** Command lines recorded from the original's nydusd: ours ends with the same code, and says the same of those that make no sense. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { noShared, type Recorded, runAllOf, sharedPath } from '../src/cli/testing.ts'
import { localConfig } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'

const TOOL = join(import.meta.dirname, '../src/cli/nydusd/index.ts')
const QUIET = '--disable-warning=ExperimentalWarning'

/** The original was built without its `nbd`. */
function recorded(): Recorded[] {
  const all = JSON.parse(readFileSync(sharedPath('cli/nydusd.json'), 'utf8')) as Recorded[]
  return all.filter(({ args }) => args[0] !== 'nbd')
}

/** A folder like the one in which the original ran. */
function workFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'nydusd-lines-'))
  for (const name of ['images', 'blobs', 'sources']) symlinkSync(sharedPath(name), join(folder, name))
  for (const name of ['work/m1', 'dirs/small']) mkdirSync(join(folder, name), { recursive: true })
  writeFileSync(join(folder, 'work/mount.json'), localConfig('blobs', 'work/cache'))
  return folder
}

describe('command lines recorded from nydusd', { skip: whyNoFuse() ?? noShared }, async () => {
  if (noShared !== false) return
  const folder = workFolder()
  after(() => rmSync(folder, { recursive: true, force: true }))
  const usage = recorded().filter(({ exit }) => exit !== 1)
  const ran = await runAllOf(
    'nydusd',
    usage.map(({ args }) => args),
    folder,
  )
  for (const [index, { args, ...wanted }] of usage.entries()) {
    const line = args.join(' ')
    test(`nydusd ${line}`, () => {
      const found = ran[index]
      assert.ok(found)
      assert.equal(found.exit, wanted.exit, found.stderr)
      if (wanted.exit === 0) return assert.match(found.stdout, /^nydusd \rVersion: \tv\d[^]*\n\n$/)
      assert.equal(found.stdout, '')
      assert.equal(found.stderr, wanted.stderr)
    })
  }
})

/**
 * Ours mounts there. The original found no right to raise the limit of files, which ours does without, or missed a blob at the start, which ours looks for when it is read.
 */
function mountsHere(line: string): boolean {
  return line.endsWith('--mountpoint work/m1') || line.endsWith('--localfs-dir dirs')
}

describe('starts that failed when they were recorded', { skip: whyNoFuse() ?? noShared }, () => {
  if (noShared !== false) return
  const folder = workFolder()
  after(() => rmSync(folder, { recursive: true, force: true }))
  const lines = recorded().filter(({ exit, args }) => exit === 1 && !mountsHere(args.join(' ')))
  for (const { args } of lines) {
    test(`nydusd ${args.join(' ')}`, () => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [QUIET, TOOL, ...args], {
        cwd: folder,
        encoding: 'utf8',
        timeout: 120_000,
      })
      assert.equal(status, 1, stderr)
      assert.equal(stdout, '')
      assert.match(stderr, /(?:^|\n)Error: \S/)
    })
  }
  test('nothing stays mounted', () => assert.ok(!readFileSync('/proc/self/mounts', 'utf8').includes(folder)))
})
