/** Ours and the original's nydusctl: the same words for the same answers and the same command lines. */
import assert from 'node:assert/strict'
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { localConfig, Scratch } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { noShared, type Ran, type Recorded, runAllOf, sharedPath } from '../src/cli/testing.ts'
import { infoText } from '../src/cli/nydusctl/info.ts'
import { type Json, parseJson, sortedJson } from '../src/cli/nydusctl/json.ts'
import { backendText, cacheText, fileSystemText } from '../src/cli/nydusctl/metrics-text.ts'

const recorded =
  noShared === false ? (JSON.parse(readFileSync(sharedPath('api/nydusctl.json'), 'utf8')) as Recorded[]) : []

/** What the original printed for a command that ended well. */
function printed(...args: string[]): string {
  const found = recorded.find((one) => one.exit === 0 && one.args.join(' ') === ['--sock', 'SOCK', ...args].join(' '))
  assert.ok(found, args.join(' '))
  return found.stdout
}

describe('answers as the original prints them', { skip: noShared }, () => {
  for (const [words, text] of [
    [['info'], infoText],
    [['metrics', 'fsstats'], fileSystemText],
    [['metrics', 'cache'], cacheText],
    [['metrics', 'backend'], backendText],
  ] as ReadonlyArray<readonly [string[], (answer: Json) => string]>) {
    test(words.join(' '), () => {
      const raw = printed('-r', ...words)
      const answer = parseJson(raw)
      assert.ok(answer !== undefined)
      assert.equal(text(answer), printed(...words))
      assert.equal(`${sortedJson(answer)}\n`, raw)
    })
  }
})

/** Where ours answers otherwise, and why: all else is equal. */
const OTHERWISE: ReadonlyMap<string, string> = new Map([
  // The same cause, but it is said what to do.
  ['-S work/absent.sock info', 'No such file or directory (os error 2)'],
  ['-S sources/small.tar info', 'Connection refused (os error 111)'],
  // More commands and options.
  ['--sock SOCK --help', ''],
  // Among them is one that is like it.
  ['--sock SOCK nope', "error: unrecognized subcommand 'nope'"],
])
const KINDS = ['Read Latency:', 'Partial Hits:', 'Backend Type:', 'Version:'] as const

/** Amounts and times are those of another run: the labels and the layout count. */
function layout(text: string): string {
  return text
    .replaceAll(/"[^"\n]*"/g, '"…"')
    .replaceAll(/\d{4}-\d\d-\d\d .*/g, 'TIME')
    .replaceAll(/(?:NaN|inf|\d+(?:\.\d+)?) */g, '0 ')
    .replaceAll(/[ \t]+/g, ' ')
}

test('command lines recorded from the original end as they did', {
  skip: whyNoFuse() ?? noShared,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  for (const name of ['images', 'blobs', 'sources']) symlinkSync(sharedPath(name), join(scratch.path, name))
  scratch.folder('work')
  const config = localConfig('blobs', join('work', 'cache'), { enable_xattr: true })
  for (const name of ['config.json', 'work/mount.json']) writeFileSync(join(scratch.path, name), config)
  const daemon = await scratch.nydusd(['--bootstrap', 'images/v6-tar-none-c64k/bootstrap', '--config', 'config.json'])
  const ran = await runAllOf(
    'nydusctl',
    recorded.map(({ args }) => args.map((word) => (word === 'SOCK' ? daemon.socket : word))),
    scratch.path,
  )
  for (const [index, { args, ...wanted }] of recorded.entries()) {
    const found = ran[index]
    assert.ok(found)
    compare(args.join(' '), found, wanted)
  }
  assert.equal(await daemon.stop(), 0)
})

function compare(name: string, found: Ran, wanted: Ran): void {
  assert.equal(found.exit, wanted.exit, `${name}: ${found.stderr}`)
  const other = OTHERWISE.get(name)
  if (other !== undefined) return assert.ok(found.stderr.includes(other), `${name}: ${found.stderr}`)
  assert.equal(found.stderr, wanted.stderr, name)
  if (name.endsWith('--version'))
    return assert.match(found.stdout, /^A client to query and configure the nydusd daemon\n \rVersion: \tv\d[^]*\n\n$/)
  if (/ -r( |$)/.test(name)) {
    const [ours, theirs] = [parseJson(found.stdout), parseJson(wanted.stdout)]
    assert.deepEqual(Object.keys(Object(ours)), Object.keys(Object(theirs)), name)
  } else if (KINDS.some((kind) => wanted.stdout.includes(kind)) && !name.includes('cache'))
    assert.equal(layout(found.stdout), layout(wanted.stdout), name)
  else if (!name.includes('cache')) assert.equal(found.stdout, wanted.stdout, name)
}
