import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'

const DOCS = join(import.meta.dirname, '../../docs')

/** Every tool has them. */
const OWN: ReadonlySet<string> = new Set(['--help', '--version'])

for (const tool of [
  'nydus-image',
  'nydusd',
  'nydusctl',
  'nydusify',
  'nydus-registry',
  'ctr-remote',
  'containerd-nydus-grpc',
  'nydus-setup',
  'nydus-docker-graphdriver',
]) {
  const page = join(DOCS, `${tool}.md`)
  const source = [`${tool}/index.ts`, `${tool}.ts`].map((name) => join(import.meta.dirname, name)).find(existsSync)
  const why = source === undefined ? `there is no ${tool} yet` : !existsSync(page) && `there is no docs/${tool}.md yet`

  describe(`docs/${tool}.md`, { skip: why }, () => {
    if (why !== false || source === undefined) return
    const text = readFileSync(page, 'utf8')
    const helps = helpsOf(source)
    for (const [command, help] of helps) {
      const name = [tool, command].filter(Boolean).join(' ')
      test(`tells every flag of ${name}`, () => {
        const place = sectionOf(text, command)
        const told = new Set(flagsIn(place.text))
        const untold = flagsOfHelp(help).filter((flag) => !OWN.has(flag) && !told.has(flag))
        assert.deepEqual(untold, [], `docs/${tool}.md${place.what} lacks flags that "${name} --help" has`)
      })
    }
    test('tells no flag that the tool does not have', () => {
      const known = new Set([...helps.values()].flatMap(flagsIn))
      const rows = text.split('\n').filter((line) => line.startsWith('| `-'))
      // A cell may name old names of a flag beside it, which help texts do not show.
      const cells = rows.map((row) => flagsIn(row.split(/(?<!\\)\|/)[1] ?? ''))
      const wrong = cells.filter((flags) => !flags.some((flag) => known.has(flag))).flat()
      assert.deepEqual(wrong, [], `tables of docs/${tool}.md have flags that no --help has`)
    })
  })
}

/** Help texts by command; '' is the tool itself. */
function helpsOf(source: string): Map<string, string> {
  const own = help(source)
  const commands = /\n(?:Sub)?[Cc]ommands:\n((?: .*\n)+)/.exec(own)?.[1] ?? ''
  const names = [...commands.matchAll(/^ {2}([a-z][\w-]*)/gm)].map((match) => match[1] ?? '')
  const helps: Array<readonly [string, string]> = [['', own]]
  for (const name of names) {
    if (name === 'help') continue
    const text = help(source, name)
    helps.push([name, text])
    const below = /\nCommands:\n((?: .*\n)+)/.exec(text)?.[1] ?? ''
    for (const [, sub = ''] of below.matchAll(/^ {2}([a-z][\w-]*)/gm))
      helps.push([`${name} ${sub}`, help(source, name, sub)])
  }
  return new Map(helps)
}

function help(source: string, ...command: string[]): string {
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', source, ...command, '--help'],
    { encoding: 'utf8', timeout: 120_000 },
  )
  assert.match(stdout, /--help/, stderr)
  return stdout
}

/** Long names of the options that a help text lists. */
function flagsOfHelp(text: string): string[] {
  return [...text.matchAll(/^ {2,8}(?:-\w, )?(--[a-z][\w-]*)/gm)].map((match) => match[1] ?? '')
}

function flagsIn(text: string): string[] {
  return [...text.matchAll(/--[a-z][\w-]*/g)].map(([flag]) => flag)
}

/** The part of the page under a heading that names the command; the whole page when there is none. */
function sectionOf(text: string, command: string): { readonly text: string; readonly what: string } {
  if (command === '') return { text, what: '' }
  const heading = new RegExp(`^(#{2,}) [^\\n]*\\b${command}\\b[^\\n]*\\n`, 'm').exec(text)
  if (heading === null) return { text, what: '' }
  const rest = text.slice(heading.index + heading[0].length)
  const end = rest.search(new RegExp(`^#{2,${heading[1]?.length ?? 2}} `, 'm'))
  // What all commands have in common is told once, before the first of them.
  const common = text.slice(0, text.search(/^## /m))
  return { text: common + (end < 0 ? rest : rest.slice(0, end)), what: `, section "${heading[0].trim()}",` }
}
