import assert from 'node:assert/strict'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { runAll } from './testing.ts'

const TESTDATA = join(import.meta.dirname, 'testdata')
const IMAGES = join(import.meta.dirname, '../../rafs/testdata')

for (const file of readdirSync(TESTDATA).filter((name) => name.endsWith('.txt'))) {
  test(`nydus-image speaks as in ${file}`, async () => {
    const text = readFileSync(join(TESTDATA, file), 'utf8')
    const lines = text.split('\n').filter((line) => line.startsWith('$ nydus-image'))
    const folder = sampleFolder()
    try {
      const ran = await runAll(
        lines.map((line) => wordsOf(line).slice(2)),
        folder,
      )
      const found = ran
        .map(
          ({ exit, stdout, stderr }, i) =>
            `${lines[i]}\n${stdout}${stdout === '' || stdout.endsWith('\n') ? '' : '\n'}${marked(stderr)}? ${exit}\n`,
        )
        .join('\n')
      if (process.env['UPDATE_TRANSCRIPTS'] === '1') writeFileSync(join(TESTDATA, file), found)
      else assert.equal(found, text)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
}

/** Words of a command line, as a shell splits it. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|\S+/g)].map(([word, inQuotes]) => inQuotes ?? word)
}

function marked(stderr: string): string {
  const steady = stderr.replaceAll(/\[\d{4}-[^\]]*\]/g, '[TIME]')
  return steady === ''
    ? ''
    : steady
        .replace(/\n$/, '')
        .split('\n')
        .map((line) => `2> ${line}\n`)
        .join('')
}

/** The images that the project carries, and a directory that gives the same blob everywhere. */
function sampleFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'transcript-'))
  for (const name of readdirSync(IMAGES).filter((file) => file.endsWith('.bootstrap')))
    symlinkSync(join(IMAGES, name), join(folder, name))
  mkdirSync(join(folder, 'images'))
  for (const name of ['v6-merge3', 'v6-upper-tar'])
    symlinkSync(join(IMAGES, `${name}.bootstrap`), join(folder, 'images', name))
  mkdirSync(join(folder, 'tree'), { mode: 0o755 })
  writeFileSync(join(folder, 'tree/hello.txt'), 'hello, world\n'.repeat(1000), { mode: 0o644 })
  writeFileSync(join(folder, 'tree/other.txt'), 'other\n', { mode: 0o644 })
  const config = { version: 2, backend: { type: 'localfs', localfs: { dir: '.' } } }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  for (const name of ['tree/hello.txt', 'tree/other.txt', 'tree'])
    utimesSync(join(folder, name), 1_700_000_000, 1_700_000_000)
  return folder
}
