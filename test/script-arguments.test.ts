import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'

const root = join(import.meta.dirname, '..')

/** The scripts of CONTRIBUTING.md, each with what only its usage says, and with what it refuses. */
const SCRIPTS = [
  ['test/node/main.ts', /--containerd NAME/, ['--only', 'nothing-is-named-so']],
  ['bench/main.ts', /cold-link/, ['no-part']],
  ['scripts/kill-test.ts', /KILLS/, ['0']],
  ['test/fuzz/main.ts', /--seconds S/, ['no-target']],
  ['test/posix/main.ts', /--pjdfstest CHECKOUT/, ['--mode', 'no-mode', '--xfstests', '.']],
  ['scripts/package.ts', /push HOST/, ['no-package']],
  ['scripts/build.ts', /FOLDER/, ['one', 'two']],
  ['scripts/test.ts', /PART/, ['--no-option']],
  ['demo/main.ts', /--bandwidth MBIT/, ['--rtt', 'no-number']],
] as const

function run(script: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync('sh', ['scripts/node.sh', script, ...args], {
    cwd: root,
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { status, stdout, stderr }
}

for (const [script, usage, refused] of SCRIPTS) {
  test(`${script} --help prints how it is used, and ends with 0`, () => {
    const { status, stdout, stderr } = run(script, '--help')
    assert.match(stdout, usage)
    assert.deepEqual([status, stderr], [0, ''])
  })

  test(`${script} names what cannot be meant, and ends with 2`, () => {
    for (const args of [['--unheard-of'], refused]) {
      const { status, stdout, stderr } = run(script, ...args)
      assert.ok(stderr.includes(args.find((arg) => /^--un|^no|^0/.test(arg)) ?? args[0]), stderr)
      assert.doesNotMatch(stderr, /\n {4}at /)
      assert.deepEqual([status, stdout], [2, ''])
    }
  })
}
