import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Ran, runAllOf } from '../testing.ts'

const CASES = JSON.parse(
  await readFile(join(import.meta.dirname, 'testdata/command-lines.json'), 'utf8'),
) as ReadonlyArray<{
  readonly args: readonly string[]
  readonly exit: number
  readonly message: string
  readonly help: boolean
}>

let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nydusify-test-'))
})
after(() => rm(folder, { recursive: true, force: true }))

/** In an environment that has no variables of ours. */
async function runAll(commands: ReadonlyArray<readonly string[]>): Promise<Ran[]> {
  return await runAllOf('nydusify', commands, folder, { HOME: folder })
}

/** The message of the last line of the log. */
function messageOf(stderr: string): string {
  const last = stderr.trimEnd().split('\n').at(-1) ?? ''
  const quoted = / msg=("(?:[^"\\]|\\.)*"|\S+)/.exec(last)?.[1]
  if (quoted === undefined) return last
  return quoted.startsWith('"') ? (JSON.parse(quoted) as string) : quoted
}

test("the original's answers to command lines", async () => {
  const ran = await runAll(CASES.map(({ args }) => args))
  for (const [index, { args, exit: wanted, message, help }] of CASES.entries()) {
    const { exit, stdout, stderr } = ran[index] ?? assert.fail()
    const line = `nydusify ${args.join(' ')}\n${stderr}`
    assert.equal(exit, wanted, line)
    assert.ok(messageOf(stderr).startsWith(message), `${line}\nwanted: ${message}`)
    assert.equal(stdout !== '', help, line)
  }
  assert.equal(existsSync(join(folder, 'work')), false, 'nothing is left')
})

test('what this version does not do is said in one line that names it', async () => {
  const both = ['--source', 'localhost:1/a', '--target', 'localhost:1/b']
  const cases: ReadonlyArray<readonly [readonly string[], RegExp]> = [
    [['convert', ...both, '--oci-ref'], /^--oci-ref \(zran\) is not supported/],
    [['convert', ...both, '--fs-version', '5'], /^--fs-version 5 is not supported/],
    [
      ['convert', ...both, '--backend-type', 'oss', '--backend-config', '{"access_key_secret":"hush"}'],
      /^--backend-type oss is not supported/,
    ],
    [['convert', ...both, '--build-cache-tag', 'cache'], /^--build-cache and --build-cache-tag are not supported/],
    [['copy', '--source', 'a'], /^nydusify copy is not part of this version/],
    [['pack', '--name', 'x'], /^nydusify build is not part of this version/],
    [['chunkdict', 'generate'], /^nydusify chunkdict is not part/],
  ]
  const ran = await runAll(cases.map(([args]) => args))
  for (const [index, [, wanted]] of cases.entries()) {
    const { exit, stderr } = ran[index] ?? assert.fail()
    assert.equal(exit, 1)
    assert.match(messageOf(stderr), wanted)
    assert.doesNotMatch(stderr, /hush/)
    assert.equal(stderr.trimEnd().split('\n').length, 1)
  }
})

test("the tag for Docker's storage driver must be a tag, and another one than the target's", async () => {
  const both = ['convert', '--source', 'localhost:1/a', '--target', 'localhost:1/b:1']
  const ran = await runAll([
    [...both, '--graph-driver-tag', 'localhost:1/b:docker'],
    [...both, '--graph-driver-tag', '1'],
  ])
  assert.match(messageOf(ran[0]?.stderr ?? ''), /^invalid --graph-driver-tag "localhost:1\/b:docker": it is a tag in/)
  assert.match(messageOf(ran[1]?.stderr ?? ''), /^--graph-driver-tag 1 is the tag of the target/)
  assert.deepEqual(
    ran.map(({ exit }) => exit),
    [1, 1],
  )
})

test('help teaches with examples; version; completion; help of a command', async () => {
  const ran = await runAll([
    ['--version'],
    ['completion', 'bash'],
    ['convert', '--help'],
    ['check', '-h'],
    ['mount', '-help'],
    ['help', 'view'],
    ['--help'],
  ])
  const [version = assert.fail(), completion = assert.fail(), ...helps] = ran
  for (const { exit, stdout } of helps) {
    assert.equal(exit, 0)
    assert.match(stdout, /Examples:\n {2}nydusify /)
  }
  assert.match(version.stdout, /^Nydusify version \nVersion\t: v\d+\.\d+\.\d+/)
  assert.match(completion.stdout, /merge-platform/)
})
