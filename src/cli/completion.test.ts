import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { completionScript } from './completion.ts'
import { createProgram } from './nydus-image/program.ts'

const root = createProgram(new AbortController().signal)

function lacks(shell: string): string | false {
  return spawnSync(shell, ['-c', 'true']).status === 0 ? false : `there is no ${shell}`
}

describe('completion in bash', { skip: lacks('bash') }, () => {
  let folder = ''
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'completion-'))
    writeFileSync(join(folder, 'script'), completionScript(root, 'bash'))
    writeFileSync(join(folder, 'image.boot'), '')
    mkdirSync(join(folder, 'imagedir'))
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  function bash(script: string): string {
    const { status, stdout, stderr } = spawnSync('bash', ['--norc', '-c', `set -u; source ./script; ${script}`], {
      cwd: folder,
      encoding: 'utf8',
    })
    assert.equal(status, 0, stderr)
    return stdout
  }

  /** What Tab offers after these words, the last of which is being typed. */
  function offered(...words: string[]): string[] {
    const quoted = words.map((word) => `'${word}'`).join(' ')
    const script = `COMP_WORDS=(nydus-image ${quoted}); COMP_CWORD=${words.length}; _nydus_image; printf '%s\\n' "\${COMPREPLY[@]}"`
    return bash(script)
      .split('\n')
      .filter((word) => word !== '')
      .sort()
  }

  test('bash knows the function for the tool', () => {
    assert.equal(bash('complete -p nydus-image'), 'complete -F _nydus_image nydus-image\n')
  })

  for (const [name, words, wanted] of [
    ['commands', ['che'], ['check']],
    ['flags of a command', ['check', '--ver'], ['--verbose']],
    [
      'short flags too',
      ['check', '-'],
      [
        '--blob-dir',
        '--bootstrap',
        '--config',
        '--help',
        '--log-file',
        '--log-level',
        '--output-json',
        '--progress',
        '--verbose',
        '-B',
        '-C',
        '-D',
        '-J',
        '-L',
        '-h',
        '-l',
        '-v',
      ],
    ],
    ['choices of a flag', ['create', '--compressor', ''], ['lz4_block', 'none', 'zstd']],
    ['commands that other tools lack', ['di'], ['diff']],
    ['flags of diff', ['diff', '--s'], ['--summary']],
    ['modes of progress', ['merge', '--progress', 'p'], ['plain']],
    ['choices of a short flag', ['create', '-v', ''], ['5', '6']],
    ['choices after "="', ['create', '--digester', '=', 'b'], ['blake3']],
    ['all choices after "="', ['create', '--features', '='], ['blob-toc']],
    ['files for a flag with a file', ['create', '-B', 'im'], ['image.boot', 'imagedir']],
    ['folders for a flag with a folder', ['create', '--blob-dir', 'im'], ['imagedir']],
    ['files for an operand', ['check', 'image.'], ['image.boot']],
    ['the words of an operand', ['completion', ''], ['bash', 'fish', 'zsh']],
    ['flags of the tool itself', ['--ver'], ['--version']],
    ['a global flag before the command', ['-l', 'warn', 'check', '--verb'], ['--verbose']],
    ['a command of a command', ['chunkdict', 'gen'], ['generate']],
    ['its flags', ['chunkdict', 'generate', '--da'], ['--database']],
    ['its files', ['chunkdict', 'generate', 'image.'], ['image.boot']],
    ['nothing hidden', ['create', '--disable'], []],
  ] as const) {
    test(`offers ${name}`, () => assert.deepEqual(offered(...words), wanted))
  }
})

test('the script for zsh parses', { skip: lacks('zsh') }, () => {
  const { status, stderr } = spawnSync('zsh', ['-f', '-n'], { input: completionScript(root, 'zsh'), encoding: 'utf8' })
  assert.equal(status, 0, stderr)
})

test('fish offers commands, flags and choices', { skip: lacks('fish') }, () => {
  const asked = [
    'nydus-image che',
    'nydus-image check --ver',
    'nydus-image create --compressor ',
    'nydus-image completion b',
  ]
  const script = `${completionScript(root, 'fish')}${asked.map((line) => `complete -C '${line}'\n`).join('')}`
  const { stdout, stderr } = spawnSync('fish', ['--no-config', '-c', script], { encoding: 'utf8' })
  const words = stdout
    .trim()
    .split('\n')
    .map((line) => line.split('\t')[0])
  assert.deepEqual(words, ['check', '--verbose', 'lz4_block', 'none', 'zstd', 'bash'], stderr)
})

test('every visible flag is in each script', () => {
  for (const shell of ['bash', 'zsh', 'fish'] as const) {
    const script = completionScript(root, shell)
    const flags = root.commands.flatMap((command) => command.options).filter(({ hidden }) => !hidden)
    for (const { long = '' } of flags)
      assert.ok(script.includes(shell === 'fish' ? `-l ${long.slice(2)}` : long), `${shell} lacks ${long}`)
  }
})
