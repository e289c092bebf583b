import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { ImageInspector } from '../../builder/index.ts'
import { openBootstrapFile } from './bootstrap-file.ts'
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
    while (!shown.includes(after)) await once(terminal.stdout, 'data', { signal: AbortSignal.timeout(20_000) })
    shown = ''
    terminal.stdin.write(keys)
  }
  try {
    await type('Inspecting RAFS :> ', 'cd har')
    await type('r', '\t')
    await type('d', '\r')
    await type('Inspecting RAFS :> ', '\u001B[A')
    // The second one is not found below the first.
    await type('cd hard', '\r')
    await type('hard is ', 'exit\r')
    assert.equal((await exited)[0], 0)
  } finally {
    terminal.kill()
  }
})

test('commands are completed, and names after cd and stat', async () => {
  const complete = completerOf(new ImageInspector(await openBootstrapFile(IMAGE), false))
  assert.deepEqual(complete('st'), [['stats', 'stat'], 'st'])
  assert.deepEqual(complete('cd new'), [['new', 'newdir'], 'new'])
  assert.deepEqual(complete('stat emptyd'), [['emptydir'], 'emptyd'])
  assert.deepEqual(complete('cd nothing'), [[], 'nothing'])
})
