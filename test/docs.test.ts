/** The papers and the code agree: what the code cites exists in `docs/`, and what the papers name exists in the code. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'

const root = join(import.meta.dirname, '..')
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const SOURCES = globSync('{src,test,bench,demo,scripts}/**/*.ts', { cwd: root })
const PAPERS = globSync(['*.md', 'docs/**/*.md'], { cwd: root })
const { scripts, bin } = JSON.parse(read('package.json')) as {
  scripts: Record<string, string>
  bin: Record<string, string>
}

/** Headings of a page, as they stand. */
function headings(page: string): string[] {
  return [...withoutCode(read(page)).matchAll(/^#+ (.+)$/gm)].map((match) => match[1] ?? '')
}

function withoutCode(text: string): string {
  return text.replaceAll(/^```[^]*?^```$/gm, '')
}

/** Lines of the shell examples of a page. */
function exampleLines(page: string): string[] {
  const shell = read(page).replaceAll(/^```(?!sh\n)\w+\n[^]*?^```$/gm, '')
  const blocks = [...shell.matchAll(/^```(?:sh)?\n([^]*?)^```$/gm)]
  return blocks.flatMap((block) => (block[1] ?? '').split('\n').map((line) => line.trim()))
}

/** The name that a link to a heading has. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')
}

test('every section that the code cites exists', () => {
  const wrong: string[] = []
  for (const source of SOURCES) {
    const text = read(source)
    for (const [, page = '', sections = ''] of text.matchAll(/(docs\/[\w./-]+\.md)((?:(?:,| and) "[^"\n]+")*)/g)) {
      if (page.startsWith('docs/spec/')) continue // of the distribution project
      if (!existsSync(join(root, page))) wrong.push(`${source}: ${page}`)
      else
        for (const [, section = ''] of sections.matchAll(/"([^"]+)"/g))
          if (!headings(page).includes(section)) wrong.push(`${source}: ${page}, "${section}"`)
    }
    const page = /Source: (docs\/formats\/[\w-]+\.md)(?!, ")/.exec(text)?.[1]
    if (page === undefined) continue
    // A layout file names its page once, and the section at each table.
    for (const [, section = ''] of text.matchAll(/(?:\/\*\* |Section )"([^"\n]+)"/g))
      if (!headings(page).includes(section)) wrong.push(`${source}: ${page}, "${section}"`)
  }
  assert.deepEqual(wrong, [])
})

test('every link between the papers leads somewhere', () => {
  const wrong: string[] = []
  for (const paper of PAPERS)
    for (const [, link = ''] of withoutCode(read(paper)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link)) continue
      const [path = '', section] = link.split('#')
      const target = path === '' ? paper : join(dirname(paper), path)
      if (!existsSync(join(root, target))) wrong.push(`${paper}: ${link}`)
      else if (section !== undefined && !headings(target).map(anchor).includes(section)) wrong.push(`${paper}: ${link}`)
    }
  assert.deepEqual(wrong, [])
})

test('every page of docs/ is in its index', () => {
  const index = read('docs/README.md')
  const missing = PAPERS.filter((paper) => paper.startsWith('docs/') && paper !== 'docs/README.md')
    .map((paper) => paper.slice('docs/'.length))
    .filter((page) => !index.includes(`](${page})`))
  assert.deepEqual(missing, [])
})

test('every file of the project that the papers name exists', () => {
  const wrong: string[] = []
  for (const paper of PAPERS) {
    // Built and foreign files have other places; `bin/*` and names in capitals are patterns.
    for (const [, path = ''] of read(paper).matchAll(
      /(?<![\w./-])((?:src|test|bench|demo|scripts|bin)\/[\w./-]+[\w/])/g,
    ))
      if (!/[A-Z]{3}/.test(path) && !existsSync(join(root, path))) wrong.push(`${paper}: ${path}`)
  }
  assert.deepEqual(wrong, [])
})

test('every npm script and every tool in the examples exists', () => {
  const wrong: string[] = []
  for (const paper of PAPERS) {
    for (const [, name = ''] of read(paper).matchAll(/\bnpm run ([\w:-]+)/g))
      if (!Object.hasOwn(scripts, name)) wrong.push(`${paper}: npm run ${name}`)
    for (const line of exampleLines(paper)) {
      const tool = /^(?:sudo )?(?:bin\/)?(nydus[\w-]*)/.exec(line)?.[1]
      if (tool !== undefined && !Object.hasOwn(bin, tool)) wrong.push(`${paper}: ${line}`)
    }
  }
  assert.deepEqual(wrong, [])
})

test('every command of a tool in the examples is in its help', () => {
  const wrong: string[] = []
  const helps = new Map(Object.keys(bin).map((tool) => [tool, help(tool)]))
  for (const paper of PAPERS)
    for (const line of exampleLines(paper))
      for (const [, tool = '', command = ''] of line.matchAll(/(?:^|[|&(] *|sudo |bin\/)(nydus[\w-]*) +([a-z]+)\b/g))
        if (helps.has(tool) && !helps.get(tool)?.includes(command)) wrong.push(`${paper}: ${line}`)
  assert.deepEqual(wrong, [])
})

test('the floors of ARCHITECTURE.md are those that scripts/layers.ts enforces', () => {
  const told = [...read('ARCHITECTURE.md').matchAll(/^\| (\d) \| `(\w+)` \|/gm)].map(([, floor, room]) => [room, floor])
  const enforced = [...read('scripts/layers.ts').matchAll(/^ {2}(\w+): (\d),$/gm)].map(([, room, floor]) => [
    room,
    floor,
  ])
  assert.deepEqual(Object.fromEntries(told), Object.fromEntries(enforced))
  assert.deepEqual(
    globSync('src/*/index.ts', { cwd: root })
      .map((door) => door.split('/')[1] ?? '')
      .sort(),
    told
      .map(([room]) => room ?? '')
      .filter((room) => room !== 'cli')
      .sort(), // cli has no door: nobody imports it
  )
})

function help(tool: string): string {
  const source = [`src/cli/${tool}/index.ts`, `src/cli/${tool}.ts`].find((path) => existsSync(join(root, path)))
  const options = { cwd: root, encoding: 'utf8', timeout: 120_000 } as const
  // what is not written in TypeScript is in `bin/` itself
  if (source === undefined) return spawnSync(join(root, 'bin', tool), ['--help'], options).stdout
  return spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', source, '--help'], options).stdout
}
