import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { ImageInspector, quoted, unquoted } from '../../builder/index.ts'
import { readNamedImage } from './bootstrap-file.ts'
import { completerOf } from './inspect-image.ts'
import { run, TOOL } from './testing.ts'

const IMAGES = join(import.meta.dirname, '../../rafs/testdata')
const IMAGE = join(IMAGES, 'v6-upper-tar.bootstrap')

test('a conversation ends with the end of stdin', () => {
  const { exit, stdout } = run(['inspect', IMAGE], IMAGES, 'cd hard\nls\nnope\ncd ..\nstat nothing\n')
  assert.equal(exit, 0)
  assert.match(stdout, /^Inspecting RAFS :> Inspecting RAFS :> [-dl ] {4}\d+ /)
  assert.match(stdout, /Unsupported command: nope\n/)
  assert.match(stdout, /Inspecting RAFS :> \n$/)
})

test('exit ends a conversation, and what comes after it is not read', () => {
  const { exit, stdout } = run(['inspect', '-B', IMAGE], IMAGES, 'q\nls\n')
  assert.deepEqual([exit, stdout], [0, 'Inspecting RAFS :> '])
})

test('on a terminal, Tab completes names and the arrow key brings lines back', {
  skip: spawnSync('script', ['--version']).status !== 0 && 'there is no script(1), which makes terminals',
}, async () => {
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', TOOL, 'inspect', IMAGE]
    .map((word) => `'${word}'`)
    .join(' ')
  const terminal = spawn('script', ['-qec', command, '/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, TERM: 'xterm' },
  })
  const exited = once(terminal, 'exit')
  let shown = ''
  terminal.stdout.on('data', (text: Buffer) => (shown += text.toString()))
  /** Waits until this is shown, forgets it, and types. Keys that come before their time are taken for pasted text. */
  const type = async (after: string, keys: string): Promise<void> => {
    while (!shown.includes(after)) await once(terminal.stdout, 'data', { signal: AbortSignal.timeout(100_000) })
    shown = ''
    terminal.stdin.write(keys)
  }
  try {
    await type('Inspecting RAFS :> ', 'cd har')
    await type('r', '\t')
    await type('d/', '\r')
    await type('Inspecting RAFS :> ', '\u001B[A')
    // The second one is not found below the first.
    await type('cd hard/', '\r')
    await type('hard/ is ', 'exit\r')
    assert.equal((await exited)[0], 0)
  } finally {
    terminal.kill()
  }
})

describe('completion', () => {
  const CASES: ReadonlyArray<readonly [string, string[], string]> = [
    ['st', ['stats', 'stat'], 'st'],
    ['cd new', ['new/', 'newdir/'], 'new'],
    ['cd emptyd', [], 'emptyd'],
    ['stat emptyd', ['emptydir'], 'emptyd'],
    ['cd nothing', [], 'nothing'],
    ['stat hard/su', ['hard/sub/'], 'hard/su'],
    ['stat /hard/sub/', ['/hard/sub/new'], '/hard/sub/'],
    ['stat hard/one/', [], 'hard/one/'],
    ['stat "onl', [], '"onl'],
    ['stat "new', ['"new"', '"newdir"'], '"new'],
  ]
  for (const [line, wanted, word] of CASES) {
    test(`of "${line}"`, async () => {
      const complete = completerOf(new ImageInspector(await readNamedImage(IMAGE, undefined), false))
      assert.deepEqual(complete(line), [wanted, word])
    })
  }
})

describe('paths', () => {
  async function inspector(name = 'v6-merge3'): Promise<ImageInspector> {
    return new ImageInspector(await readNamedImage(join(IMAGES, `${name}.bootstrap`), undefined), false)
  }

  test('of several names lead there, from here or from the root', async () => {
    const at = await inspector()
    assert.equal(at.execute('cd deep/dir-01').text, '')
    const leaf = at.execute('stat leaf2').text
    assert.match(leaf, /\nName: +"leaf2"\n[^]* {2}Chunk list:\n/)
    assert.equal(at.execute('stat /deep/dir-01/leaf2').text, leaf)
    assert.equal(at.execute('stat ../dir-01/./leaf2').text, leaf)
    assert.equal(at.execute('stat leaf2/').text, leaf)
    assert.equal(at.execute('stat leaf2/x').text, '')
    assert.equal(at.execute('cd ../../dup').text, '')
    assert.match(at.execute('ls').text, /"prefix-shared"/)
    assert.equal(at.execute('cd /deep/dir-01/leaf2').text, '/deep/dir-01/leaf2 is not a directory\n')
    assert.equal(at.execute('cd /deep/nope').text, '/deep/nope is \n')
    assert.match(at.execute('stat /').text, /Name: +"\/"/)
  })

  test('in quotes name what ls shows, whatever its bytes', async () => {
    const at = await inspector('v6-tar-none-c64k')
    at.execute('cd names')
    const names = [...at.execute('ls').text.matchAll(/^[-dl ] {4}(\d+) +(".*")$/gm)]
    assert.ok(names.length > 5)
    for (const [, ino, name] of names)
      assert.match(at.execute(`stat ${name}`).text, new RegExp(`Inode Number: +${ino}\n`), name)
  })

  test('below a directory whose name is not UTF-8, icheck names the directory', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'inspect-'))
    t.after(() => rmSync(folder, { recursive: true, force: true }))
    const directory = Buffer.concat([Buffer.from(`${folder}/tree/`), Buffer.from('fffe', 'hex')])
    mkdirSync(directory, { recursive: true })
    writeFileSync(Buffer.concat([directory, Buffer.from('/inner')]), 'content')
    assert.equal(run(['create', '-l', 'error', '-D', '.', '-B', 'boot', 'tree'], folder).exit, 0)
    const at = new ImageInspector(await readNamedImage(join(folder, 'boot'), undefined), false)
    const [, above] = /^d {4}(\d+)/m.exec(at.execute('ls').text) ?? []
    at.execute('cd "\\xFF\\xFE"')
    const [, inner] = /^- {4}(\d+)/m.exec(at.execute('ls').text) ?? []
    assert.match(at.execute(`icheck ${inner}`).text, new RegExp(`Name: +"inner"\n[^]*Parent: +${above}\n`))
    assert.match(at.execute(`icheck ${above}`).text, /Parent: +\d+\n/)
  })

  test('any name in quotes reads back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        assert.deepEqual(unquoted(quoted(bytes)), Buffer.from(bytes))
      }),
    )
    for (const text of ['"', '"a', 'a"', '"\\"', '"\\q"', '"a"b"', '"\\u{110000}"'])
      assert.equal(unquoted(text), undefined, text)
  })
})
