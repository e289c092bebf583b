/** Runs every test (or those whose path contains an argument) under node:test and exits with its code. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { ScriptArguments } from '../test/script-arguments.ts'

const root = join(import.meta.dirname, '..')
const wanted = new ScriptArguments(
  'test.ts',
  `npm test [-- PART…]

Runs every test file, or those whose path contains one of the parts; see CONTRIBUTING.md.`,
).read({}).positionals
const files = ['src', 'test', 'bench', 'demo']
  .filter((folder) => existsSync(join(root, folder)))
  .flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((path) => join(folder, path)),
  )
  .filter((path) => path.endsWith('.test.ts') && (wanted.length === 0 || wanted.some((part) => path.includes(part))))
  .sort()
if (files.length === 0) {
  // without files node would run everything that looks like a test to it
  console.error(`test.ts: no test file has ${wanted.map((part) => JSON.stringify(part)).join(' or ')} in its path`)
  process.exit(1)
}
// Each file is a process, and many start the tools: what one of them compiled, the next ones read.
const compiled = mkdtempSync(join(tmpdir(), 'nydus-tests-compiled-'))
process.on('SIGINT', () => undefined) // Ctrl-C ends the tests, and then the folder is removed
try {
  const { status } = spawnSync(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      `--import=${pathToFileURL(join(import.meta.dirname, 'bounded-properties.ts')).href}`,
      '--test',
      '--test-reporter=spec',
      '--test-timeout=240000',
      '--test-concurrency=2', // most wait for something most of the time; on two cores the default is 1
      ...files,
    ],
    { cwd: root, stdio: 'inherit', env: { ...process.env, NODE_COMPILE_CACHE: compiled } },
  )
  process.exitCode = status ?? 1
} finally {
  rmSync(compiled, { recursive: true, force: true })
}
