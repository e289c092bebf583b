import assert from 'node:assert/strict'
import { closeSync, lstatSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { changeOwner, KernelError, listXattrs, lockFile, makeNode, setTimes, setXattr, tryLockFile } from './index.ts'

const skip = process.geteuid?.() === 0 ? false : 'needs root'

test('extended attributes keep binary values and names', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'files '))
  t.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'é\n')
  writeFileSync(path, '')
  assert.deepEqual(listXattrs(path), [])
  try {
    setXattr(path, 'user.binary', new Uint8Array([0, 255, 0]))
  } catch (error) {
    if (error instanceof KernelError && error.code === 'ENOTSUP')
      return t.skip('the temporary folder has no user xattrs')
    throw error
  }
  setXattr(Buffer.from(path), Buffer.from('user.empty'), new Uint8Array(0))
  const found = listXattrs(Buffer.from(path)).map(({ name, value }) => [Buffer.from(name).toString(), [...value]])
  assert.deepEqual(
    new Map(found as Array<[string, number[]]>),
    new Map([
      ['user.binary', [0, 255, 0]],
      ['user.empty', []],
    ]),
  )
  assert.throws(() => listXattrs(join(folder, 'missing')), { code: 'ENOENT', call: 'listxattr' })
  assert.throws(() => listXattrs('a\0b'), { code: 'EINVAL' })
})

test('extended attributes are read whole, however long the list and the values are', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'files '))
  t.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'file')
  writeFileSync(path, '')
  const names = Array.from({ length: 6 }, (_unused, at) => `user.${String(at).repeat(240)}`)
  const value = new Uint8Array(1600).fill(7)
  try {
    for (const name of names) setXattr(path, name, new Uint8Array([1]))
    setXattr(path, 'user.long', value)
  } catch (error) {
    if (error instanceof KernelError && (error.code === 'ENOTSUP' || error.code === 'ENOSPC'))
      return t.skip('the temporary folder has no room for them')
    throw error
  }
  const found = listXattrs(path)
  assert.deepEqual(found.map(({ name }) => Buffer.from(name).toString()).sort(), [...names, 'user.long'].sort())
  assert.deepEqual(found.find(({ name }) => Buffer.from(name).toString() === 'user.long')?.value, value)
})

test('devices, owners and times are set on links themselves, times before 1970 too', { skip }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'files '))
  t.after(() => rmSync(folder, { recursive: true }))
  const [node, link] = [join(folder, 'null'), join(folder, 'link')]
  makeNode(node, 0o020644, (1 << 8) | 3)
  symlinkSync('nowhere', link)
  changeOwner(link, 70_000, 80_000)
  setTimes(link, -100, 5)
  const info = lstatSync(link, { bigint: true })
  assert.deepEqual([info.uid, info.gid, info.mtimeNs], [70_000n, 80_000n, -100_000_000_000n + 5n])
  assert.ok(lstatSync(node).isCharacterDevice())
  assert.equal(lstatSync(node).rdev, (1 << 8) | 3)
})

test('a lock keeps others out until it is let go', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'files '))
  t.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'lock')
  const [a, b] = [openSync(path, 'w'), openSync(path, 'r+')]
  lockFile(a, 'exclusive')
  assert.equal(tryLockFile(b), false)
  lockFile(a, 'unlock')
  assert.equal(tryLockFile(b), true)
  closeSync(a)
  closeSync(b)
})
