import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { FileTree, type NodeId } from '../../rafs/index.ts'
import { BuilderError } from '../errors.ts'
import { temporary } from '../testing.ts'
import { type DirectoryScan, scanDirectory } from './directory.ts'

const hasTracer = spawnSync('strace', ['-V']).error === undefined
const FILES = 1000

function scan(path: string): { readonly found: DirectoryScan; readonly id: NodeId } {
  const files = new FileTree()
  const options = { keepOwners: true, dropWhiteouts: undefined, signal: new AbortController().signal }
  const found = scanDirectory(path, files, options)
  return { found, id: files.firstChild(found.root) }
}

/** What can become of a file after it was listed. */
const CHANGES: Readonly<Record<string, (path: string) => void>> = {
  'is another file of the same size': (path) => {
    writeFileSync(`${path}.new`, 'after')
    renameSync(`${path}.new`, path)
  },
  'was written anew': (path) => writeFileSync(path, 'after'),
  'is a directory': (path) => {
    rmSync(path)
    mkdirSync(path)
  },
  'is a FIFO': (path) => {
    rmSync(path)
    assert.equal(spawnSync('mkfifo', [path]).status, 0)
  },
}

for (const [what, change] of Object.entries(CHANGES)) {
  test(`a file that ${what} by the time that it is read is a change of the source`, (t) => {
    const path = join(temporary(t), 'file')
    writeFileSync(path, 'begun')
    const { found, id } = scan(join(path, '..'))
    const content = found.content(id)
    change(path)
    assert.throws(
      () => {
        let isComplete = false
        try {
          content.read(new Uint8Array(5))
          isComplete = true
        } finally {
          content.close(isComplete)
        }
      },
      (error) => error instanceof BuilderError && error.code === 'SOURCE_CHANGED' && error.message.includes('file'),
    )
  })
}

test('a file that is a symlink by the time that it is read is not followed', (t) => {
  const path = join(temporary(t), 'file')
  writeFileSync(path, 'begun')
  const { found, id } = scan(join(path, '..'))
  rmSync(path)
  symlinkSync('/etc/passwd', path)
  assert.throws(() => found.content(id).read(new Uint8Array(5)), /cannot read \/file of the source/)
})

test('a file that is written to while it is read is a change, one that only grows is not', (t) => {
  for (const [change, isRefused] of [
    [(path: string) => writeFileSync(path, 'after'), true],
    [(path: string) => appendFileSync(path, ' and more'), false],
  ] as const) {
    const path = join(temporary(t), 'file')
    writeFileSync(path, 'begun')
    const { found, id } = scan(join(path, '..'))
    const content = found.content(id)
    assert.equal(content.read(new Uint8Array(5)), 5)
    change(path)
    if (isRefused) assert.throws(() => content.close(true), { code: 'SOURCE_CHANGED' })
    else content.close(true)
  }
})

/** What a process that lists a folder of FILES files and reads them asks the kernel, as strace tells it. */
function callsOfScan(t: TestContext, calls: string): string {
  const folder = join(temporary(t), 'tree')
  mkdirSync(folder)
  for (let at = 0; at < FILES; at += 1) writeFileSync(join(folder, `f${at}`), `content ${at}`)
  const trace = join(temporary(t), 'trace')
  const script = `
    import { scanDirectory } from ${JSON.stringify(join(import.meta.dirname, 'directory.ts'))}
    import { FileTree } from ${JSON.stringify(join(import.meta.dirname, '../../rafs/index.ts'))}
    const files = new FileTree()
    const scan = scanDirectory(${JSON.stringify(folder)}, files, { keepOwners: true, dropWhiteouts: undefined, signal: new AbortController().signal })
    for (let id = files.firstChild(scan.root); id !== 0; id = files.next(id)) {
      const content = scan.content(id)
      content.read(new Uint8Array(content.size))
      content.close(true)
    }`
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script]
  const { status, stderr } = spawnSync('strace', ['-f', '-e', `trace=${calls}`, '-o', trace, ...node], {
    encoding: 'utf8',
  })
  assert.equal(status, 0, stderr)
  return readFileSync(trace, 'utf8')
}

test('an open file is asked for its attributes once', { skip: hasTracer ? false : 'needs strace' }, (t) => {
  const asked = callsOfScan(t, 'statx,fstat').match(/statx\(\d+, "", [A-Z_|]*AT_EMPTY_PATH, STATX_ALL/g)?.length ?? 0
  // Node asks for those of the modules that it loads.
  assert.ok(asked >= FILES && asked < FILES * 1.8, `${asked} calls for ${FILES} files`)
})

test('no more memory of the kernel is asked for than lists of extended attributes usually take', {
  skip: hasTracer ? false : 'needs strace',
}, (t) => {
  const sizes = [...callsOfScan(t, 'llistxattr').matchAll(/llistxattr\(.*, (\d+)\) += -?\d+/g)].map(([, size]) =>
    Number(size),
  )
  assert.equal(sizes.length, FILES + 1)
  assert.ok(Math.max(...sizes) <= 4096, `${Math.max(...sizes)} bytes`)
})
