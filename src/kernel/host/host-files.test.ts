import assert from 'node:assert/strict'
import { mkdtempSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { KernelError } from '../errors.ts'
import { type HostFile, HostFiles } from './host-files.ts'
import { closeFd, cName, handleOf } from './sys.ts'

const path = mkdtempSync(join(tmpdir(), 'host files '))
process.on('exit', () => rmSync(path, { recursive: true, force: true }))

function find(files: HostFiles, name: string): HostFile {
  const fd = files.lookup(files.root, cName(name))
  assert.ok(fd >= 0, `${name}: ${fd}`)
  return files.adopt(fd)
}

test('descriptors are bounded; files are found again by their handles, also under other names', (t) => {
  const files = new HostFiles(path, 8)
  if (process.geteuid?.() !== 0 || handleOf(files.root.fd) === undefined) {
    files.end()
    t.skip('needs root and a file system with handles')
    return
  }
  const known = Array.from({ length: 60 }, (_unused, index) => {
    writeFileSync(join(path, `f${index}`), '')
    const file = find(files, `f${index}`)
    files.trim()
    return file
  })
  assert.ok(files.descriptors <= 8, `${files.descriptors} descriptors`)
  renameSync(join(path, 'f0'), join(path, 'renamed'))
  unlinkSync(join(path, 'f1'))
  for (const file of known.slice(2)) {
    assert.equal(files.look(file), 0)
    assert.equal(files.stat.key, file.key)
    files.trim()
  }
  assert.equal(files.look(known[0]), 0)
  assert.ok(files.look(known[1]) < 0, 'a file that is gone')
  assert.ok(files.descriptors <= 9)
  files.end()
})

test('a pinned file is found without a name', () => {
  const files = new HostFiles(path, 2)
  writeFileSync(join(path, 'pinned'), 'x')
  const file = find(files, 'pinned')
  files.pin(file)
  unlinkSync(join(path, 'pinned'))
  for (let count = 0; count < 4; count++) files.trim()
  assert.equal(files.look(file), 0)
  assert.equal(files.stat.nlink, 0)
  files.end()
})

test('a directory that is not there, and a name that is not', () => {
  assert.throws(() => new HostFiles(join(path, 'absent')), KernelError)
  const files = new HostFiles(path)
  assert.equal(files.lookup(files.root, cName('absent')), -2)
  const fd = files.lookup(files.root, cName('.'))
  closeFd(fd)
  files.end()
})
