/** The README tells the truth: its commands exist, its links lead somewhere, its table and picture are of one measured run. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { parseOptions } from './options.ts'
import { FIGURES, PICTURE, README, renderPicture, withTable } from './papers.ts'
import type { DemoResult } from './result.ts'

const root = dirname(README)
const readme = readFileSync(README, 'utf8')
const commands = [...readme.matchAll(/```sh\n([^]*?)```/g)].flatMap(([, block = '']) => block.trim().split('\n'))
const built = existsSync(join(root, 'dist/nydus-image.cjs'))

test('every npm command is a script of the package, and the demo knows the options that are shown', () => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  for (const [, name = ''] of readme.matchAll(/npm run (?:--silent )?([\w-]+)/g))
    assert.ok(scripts[name], `npm run ${name}`)
  for (const command of commands.filter((line) => line.startsWith('npm run demo -- ')))
    assert.doesNotThrow(
      () =>
        parseOptions(
          command
            .replace(/\s+#.*/, '')
            .split(' ')
            .slice(4),
        ),
      command,
    )
})

test('every tool and subcommand is there, with the flags that are shown', {
  skip: !built && 'dist/ is not built',
}, () => {
  for (const line of commands.filter((line) => line.startsWith('bin/'))) {
    const words = line.replace(/\s+#.*/, '').split(' ')
    const [tool = '', sub = ''] = words
    const help = spawnSync(join(root, tool), [...(sub.startsWith('-') ? [] : [sub]), '--help'], { encoding: 'utf8' })
    assert.equal(help.status, 0, `${line}: ${help.stderr}`)
    for (const flag of words.filter((word) => word.startsWith('-')))
      assert.match(help.stdout, new RegExp(`(?:^|[\\s,])${flag}(?![\\w-])`, 'm'), `${tool} ${sub} has no ${flag}`)
  }
})

test('a folder becomes an image with the commands that are shown', { skip: !built && 'dist/ is not built' }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'nydus readme '))
  try {
    const lines = commands.filter((line) => /^(?:mkdir|bin\/nydus-image)/.test(line))
    assert.ok(lines.length >= 4)
    const script = lines
      .join('\n')
      .replaceAll('bin/', '"$ROOT"/bin/')
      .replace(/ docs$/m, ' "$ROOT"/docs')
    const ran = spawnSync('sh', ['-ec', script], { cwd: folder, env: { ...process.env, ROOT: root }, encoding: 'utf8' })
    assert.equal(ran.status, 0, ran.stderr)
    assert.ok(existsSync(join(folder, 'image.boot')))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('every link leads to a file', () => {
  for (const [, target = ''] of readme.matchAll(/\]\(([^)]+)\)/g))
    if (!target.startsWith('http')) assert.ok(existsSync(join(root, target)), target)
})

test('table and picture are of the measured run that docs/demo.json keeps', () => {
  const result = JSON.parse(readFileSync(FIGURES, 'utf8')) as DemoResult
  assert.equal(withTable(readme, result), readme)
  assert.equal(readFileSync(PICTURE, 'utf8'), renderPicture(result))
})
